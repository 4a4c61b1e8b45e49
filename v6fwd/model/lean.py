"""Names of `typing` and `dataclasses` for modules that every start imports.

A relay of one port starts in 30 ms. `typing` and `dataclasses` took 11 of them: they import `re`,
check each argument, and compile six functions for each dataclass. mypy sees the real ones; at run
time a protocol is an empty class and a dataclass is compiled one function, its `__init__`.
Modules that are loaded later, or by other commands only, import the originals.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from operator import attrgetter

TYPE_CHECKING = False
"""mypy takes it for true, as it does typing's."""

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from typing import Any as Any
    from typing import ClassVar as ClassVar
    from typing import Generic as Generic
    from typing import NamedTuple as NamedTuple
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TypeVar as TypeVar
    from typing import cast as cast
else:
    Any = ClassVar = NoReturn = object

    class Protocol:
        """What an object must have. A class may name it as its base; it adds nothing."""

        __slots__ = ()

        def __class_getitem__(cls, _parameters: object) -> type:
            return cls

    class Generic(Protocol):
        """A class with parameters."""

        __slots__ = ()

    def TypeVar(name: str, **_: object) -> str:  # noqa: N802
        """A parameter of a Protocol or Generic; annotations are not evaluated."""
        return name

    def cast(_kind: object, value: object) -> object:
        """The value itself."""
        return value

    class _TupleMaker(type):
        """Makes a named tuple of the annotations in a class's body, with its methods."""

        def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(mcs, name, bases, body)
            fields = body.get("__annotations__", {})
            defaults = [body.pop(each) for each in fields if each in body]
            made = namedtuple(name, fields, defaults=defaults)
            for key, value in body.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_TupleMaker):
        """A tuple whose fields have names."""

    class _Factory:
        """Stands for the default of a field that each object gets one of its own of."""

        __slots__ = ("make",)

        def __init__(self, make: Callable[[], object]) -> None:
            self.make = make

    def field(*, default_factory: Callable[[], object]) -> _Factory:
        """A field whose default is made for each object."""
        return _Factory(default_factory)

    class _Fields:
        """What functions of `dataclasses` read of a class, made when one of them asks."""

        def __get__(self, _: object, owner: type) -> object:
            import dataclasses

            made = [
                (name, owner.__annotations__[name], *_original(owner, name))
                for name in owner.__slots__
            ]
            text = {"__doc__": "A class without one is shown by `inspect`, of 0.9 MB."}
            like = dataclasses.make_dataclass(
                owner.__name__, made, namespace=text, init=False, repr=False, eq=False
            )
            owner.__dataclass_fields__ = like.__dataclass_fields__
            return owner.__dataclass_fields__

    def _original(owner: type, name: str) -> list[object]:
        """The default of a field as `dataclasses` has it, if there is one."""
        import dataclasses

        if name not in owner._defaults:
            return []
        default = owner._defaults[name]
        if isinstance(default, _Factory):
            return [dataclasses.field(default_factory=default.make)]
        return [dataclasses.field(default=default)]

    class _Record:
        """What all dataclasses of this module have."""

        __slots__ = ()
        __dataclass_fields__ = _Fields()

        def __eq__(self, other: object) -> bool:
            if type(other) is not type(self):
                return NotImplemented
            return self._values(self) == other._values(other)

        def __repr__(self) -> str:
            pairs = ((name, getattr(self, name)) for name in self.__slots__)
            return f"{type(self).__qualname__}({', '.join(f'{k}={v!r}' for k, v in pairs)})"

    class _Frozen(_Record):
        """One whose fields do not change."""

        __slots__ = ()

        def __hash__(self) -> int:
            return hash(self._values(self))

        def __setattr__(self, name: str, value: object) -> None:
            raise _frozen(name)

        def __delattr__(self, name: str) -> None:
            raise _frozen(name)

    def _frozen(name: str) -> AttributeError:
        from dataclasses import FrozenInstanceError

        return FrozenInstanceError(f"cannot assign to field {name!r}")

    def dataclass(*, slots: bool, frozen: bool = False) -> Callable[[type], type]:
        """Make a dataclass that may have slots and be frozen, and nothing else."""
        assert slots
        base = _Frozen if frozen else _Record
        return lambda cls: _dataclass(cls, base)

    def _dataclass(cls: type, base: type) -> type:
        names = tuple(cls.__annotations__)
        body = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
        defaults = {name: body.pop(name) for name in names if name in body}
        body |= {"__slots__": names, "__match_args__": names, "_defaults": defaults}
        body["_values"] = attrgetter(*names)  # called on an object: it is no method
        made = type(cls)(cls.__name__, (base,), body)
        made.__init__ = _initializer(made, defaults)
        return made

    def _initializer(made: type, defaults: dict[str, object]) -> Callable[..., None]:
        """Compile `__init__`. The slots' own descriptors set fields of frozen objects, too."""
        words: dict[str, object] = {"Factory": _Factory}
        parameters, lines = ["self"], []
        for name in made.__slots__:
            words[f"set_{name}"] = made.__dict__[name].__set__
            value = name
            if name in defaults:
                words[f"default_{name}"] = defaults[name]
                parameters.append(f"{name}=default_{name}")
                if isinstance(defaults[name], _Factory):
                    value = f"{name}.make() if type({name}) is Factory else {name}"
            else:
                parameters.append(name)
            lines.append(f" set_{name}(self, {value})")
        exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(lines), words)
        return words["__init__"]
