// What the server is asked. Every question is a GET of numbers; every error has a message.

async function ask(name, parameters, signal) {
  const query = new URLSearchParams(parameters ?? {}).toString();
  const response = await fetch(`/api/${name}${query ? `?${query}` : ""}`, { signal });
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

export const json = async (name, parameters, signal) => (await ask(name, parameters, signal)).json();
export const bytes = async (name, parameters, signal) => (await ask(name, parameters, signal)).arrayBuffer();
