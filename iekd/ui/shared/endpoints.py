"""What an endpoint is, read from its method, once for HTTP, MCP and the documentation.

The docstring gives the words and the errors, the annotations give the parameters and the answer as JSON schemas.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints

from pydantic import TypeAdapter

from iekd.errors import UserError
from iekd.runs.store import Store
from iekd.ui.rights.access import Access

Schema = dict[str, Any]
# types of JSON schema -> the types that json.loads gives
KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "object": (dict,), "array": (list,), "boolean": (bool,), "integer": (int,),
    "number": (int, float),
}  # fmt: skip
ANSWER = "answer"  # what is returned, on the API page
REQUEST = "request"  # the parameter that is not the caller's: who asks


class Page(Protocol):
    """What a method that is written outside of ui/api/methods.py needs of its class."""

    _store: Store
    _access: Access


@dataclass(frozen=True)
class Parameter:
    """A value that an endpoint takes. schema: of its JSON, with a description that is also said in messages; optional:
    may be left out or null, and is then `default`."""

    name: str
    schema: Schema
    optional: bool = False
    default: Any = None

    @property
    def what(self) -> str:
        return str(self.schema["description"])

    def fits(self, value: Any) -> bool:
        """Whether a value is of the right kind; what an object has in it is checked later."""
        return _fits(value, self.schema)


@dataclass(frozen=True)
class Endpoint:
    """One action that programs may ask for.

    summary: what it does; errors: what may be wrong, each a part of a sentence; answer: the schema of what it returns;
    asks_who: whether the method takes a request, because not everybody gets the same.
    """

    name: str
    summary: str
    errors: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    answer: Schema
    asks_who: bool

    @property
    def description(self) -> str:
        return f"{self.summary} Errors: {'; '.join(self.errors)}." if self.errors else self.summary


Endpoints = Mapping[str, Endpoint]


def endpoints_of(owner: type) -> dict[str, Endpoint]:
    """Every public method of a class as an endpoint, in the order in which they are written."""
    return {name: endpoint_of(method) for name, method in vars(owner).items() if not name.startswith("_")}


def endpoint_of(method: Callable[..., Any]) -> Endpoint:
    """Read one from its signature and docstring. `Raises:` there lists the errors, as `Kind: when`, and
    `Returns:` describes the answer."""
    hints = get_type_hints(method, include_extras=True)
    parameters, asks_who = [], False
    for name, parameter in inspect.signature(method).parameters.items():
        if name in ("self", REQUEST):
            asks_who = asks_who or name == REQUEST
            continue
        schema = schema_of(hints[name])
        if parameter.default is not inspect.Parameter.empty:
            schema["default"] = parameter.default
        parameters.append(Parameter(name, schema, "default" in schema, schema.get("default")))
    words, _, raised = (inspect.getdoc(method) or "").partition("Raises:")
    words, _, returned = words.partition("Returns:")
    answer = schema_of(hints["return"])
    if returned:
        answer["description"] = " ".join(returned.split())
    errors = (" ".join(error.split()) for error in re.split(r"^ *\w+Error: ", raised, flags=re.MULTILINE))
    said = tuple(error.rstrip(".") for error in errors if error)
    return Endpoint(method.__name__, " ".join(words.split()), said, tuple(parameters), answer, asks_who)


def schema_of(kind: Any) -> Schema:
    """The JSON schema of a type, without references and titles."""
    schema = TypeAdapter(kind).json_schema(mode="serialization")
    inlined: Schema = _inlined(schema, schema.get("$defs", {}))
    return inlined


def _inlined(node: Any, definitions: Schema) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        own = {key: value for key, value in node.items() if key != "$ref"}
        return _inlined({**definitions[node["$ref"].rpartition("/")[2]], **own}, definitions)
    # a title of pydantic's is a text; a property called title is an object
    return {
        key: _inlined(value, definitions)
        for key, value in node.items()
        if key != "$defs" and not (key == "title" and isinstance(value, str))
    }


def _fits(value: Any, schema: Schema) -> bool:
    if isinstance(value, bool) and schema["type"] != "boolean":
        return False
    if not isinstance(value, KINDS[schema["type"]]):
        return False
    return not isinstance(value, list) or all(_fits(item, schema["items"]) for item in value)


def in_order(endpoint: Endpoint, values: Mapping[str, Any], parameters: tuple[Parameter, ...] = ()) -> list[Any]:
    """The values of a call by name, in the order of the parameters; None where an optional one is left out.

    Args:
        parameters: others than the endpoint's, where a caller sends some in another form.
    Raises:
        UserError: one is missing, unknown or of the wrong kind.
    """
    parameters = parameters or endpoint.parameters
    names = [parameter.name for parameter in parameters]
    for key in values:
        if key not in names:
            takes = listed(parameters) or "nothing"
            raise UserError(f"The endpoint '{endpoint.name}' takes no '{key}'. It takes: {takes}.")
    found = [values.get(name) for name in names]
    check(endpoint.name, parameters, found)
    return found


def check(name: str, parameters: tuple[Parameter, ...], values: list[Any]) -> None:
    """Compare values with parameters, in order; those that are left out at the end count as None.

    Raises:
        UserError: one does not fit.
    """
    for parameter, value in zip(parameters, [*values, *[None] * len(parameters)], strict=False):
        if value is None and parameter.optional:
            continue
        if value is None:
            raise UserError(f"The endpoint '{name}' needs '{parameter.name}': {parameter.what}.")
        if not parameter.fits(value):
            raise UserError(f"'{parameter.name}' of the endpoint '{name}' has to be {parameter.what}.")


def listed(parameters: tuple[Parameter, ...]) -> str:
    """Names of parameters with what they are, for a message."""
    return ", ".join(f"'{parameter.name}' ({parameter.what})" for parameter in parameters)
