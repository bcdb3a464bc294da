"""Training: from a task to a run."""

import logging

# transformers' trainer imports peft, which imports bitsandbytes where it is installed, which then tells everybody,
# whether they quantize or not, of a kernel for 4 bits that it would like to fetch.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
