"""Messages as rosidl makes them for Python: fields known beforehand, types checked when they are set."""

from types import SimpleNamespace

_PLAIN = {"double": float, "float": float, "string": str, "uint32": int, "uint8": int}


def make(module, type_name, **fields):
    """A message class; `fields`: name -> type of the interface, `sequence<…>`, `Header`, or a class."""

    def init(self, **values):
        for name, kind in fields.items():
            if isinstance(kind, type):
                value = kind()
            elif kind == "Header":
                value = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id="")
            else:
                value = b"" if kind == "sequence<uint8>" else [] if kind.startswith("sequence") else _PLAIN[kind]()
            object.__setattr__(self, name, value)
        for name, value in values.items():
            setattr(self, name, value)

    def set_(self, name, value):
        assert name in fields, f"{type_name} has no {name}"
        kind = fields[name]
        if isinstance(kind, str) and kind in _PLAIN:
            assert isinstance(value, _PLAIN[kind])
        elif isinstance(kind, str) and kind.startswith("sequence<") and kind != "sequence<uint8>":
            assert all(isinstance(each, _PLAIN[kind[9:-1]]) for each in value)
        object.__setattr__(self, name, value)

    names = {name: str(kind) for name, kind in fields.items()}
    body = {"__init__": init, "__setattr__": set_, "__module__": module}
    body["get_fields_and_field_types"] = classmethod(lambda cls: names)
    return type(type_name, (), body)
