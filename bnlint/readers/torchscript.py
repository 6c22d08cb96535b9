"""TorchScript archives: the same facts of a model, from its attributes and, as text, from its source.

What a pickled module keeps as attributes, TorchScript writes as constants into code/*.py:
`eps : Final[float] = 1.0000000000000001e-05`. A traced module has no such constants, but the call
`torch.batch_norm(..., training, momentum, eps, cudnn)` with the values it was traced with. Nothing of
that code is run.
"""

from __future__ import annotations

from bnlint.readers.modules import Parts, Walk, class_of
from bnlint.readers.values import Instance, as_tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnlint.model.tensor import Tensor
    from bnlint.readers.modules import Model
    from bnlint.readers.values import Loaded

_ROOT = "__torch__"
_CALL = " = torch.batch_norm("
_FINAL = " : Final["


def read_script(loaded: Loaded) -> Model | None:
    """The model of a TorchScript archive, None where its root is no module."""
    parts_of = _Scripted(_Source(loaded.code)).parts
    return Walk(parts_of, "torchscript").model(loaded.root, "") if parts_of(loaded.root) else None


class _Scripted:
    """Takes the modules of an archive apart."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def parts(self, value: object) -> Parts | None:
        """The parts of a scripted module, None for anything else."""
        class_ = class_of(value)
        if type(value) is not Instance or not isinstance(value.state, dict) or not class_.module.startswith(_ROOT):
            return None
        declared = self._source.declaration(class_.module, class_.name)
        if not declared.is_module:
            return None
        attributes: Mapping[str, object] = value.state
        tensors = {name: tensor for name, each in attributes.items() if (tensor := as_tensor(each))}
        parameters = {name: tensor for name, tensor in tensors.items() if name in declared.parameters}
        for tensor in parameters.values():
            tensor.parameter = True
        return Parts(
            _without_mangling(class_.module),
            class_.name,
            parameters,
            _buffers(attributes, tensors, declared),
            {name: each for name, each in attributes.items() if type(each) is Instance},
            {"training": attributes.get("training"), **declared.constants},
        )


def _buffers(
    attributes: Mapping[str, object], tensors: Mapping[str, Tensor], declared: _Declaration
) -> dict[str, Tensor | None]:
    """Buffers by name. Before torch 1.5 nothing told them from other tensors; an absent statistic is None."""
    names = tensors if declared.buffers is None else declared.buffers
    return {name: tensors.get(name) for name in attributes if name in names and name not in declared.parameters}


def _without_mangling(module: str) -> str:
    """The module a class was written in: `__torch__.torch.nn.modules.batchnorm.___torch_mangle_3` is torch's."""
    kept = [part for part in module.split(".") if part != _ROOT and not part.startswith("___torch_mangle_")]
    return ".".join(kept)


# -- source texts --------------------------------------------------------------------------------------


class _Declaration:
    """What the text of a class says: its parameters, its buffers (None: nothing), its constants by name."""

    __slots__ = ("buffers", "constants", "is_module", "parameters")

    def __init__(self, is_module: bool = True) -> None:
        self.is_module = is_module
        self.parameters: frozenset[str] = frozenset()
        self.buffers: frozenset[str] | None = None
        self.constants: dict[str, object] = {}

    def read(self, line: str) -> None:
        """Take in one line of the class."""
        if line.startswith("  __parameters__ = ["):
            self.parameters = frozenset(line.split('"')[1::2])
        elif line.startswith("  __buffers__ = ["):
            self.buffers = frozenset(line.split('"')[1::2])
        elif _FINAL in line:
            name, _, rest = line.strip().partition(_FINAL)
            self._keep(name, rest.rpartition(" = ")[2])
        elif _CALL in line:
            arguments = line.partition(_CALL)[2].rstrip(")").split(", ")
            for name, literal in zip(("training", "momentum", "eps"), arguments[5:8], strict=False):
                self._keep(name, literal)

    def _keep(self, name: str, literal: str) -> None:
        if literal in _LITERALS:
            self.constants[name] = _LITERALS[literal]
            return
        try:
            self.constants[name] = float(literal)
        except ValueError:
            return  # a name or a text: none of BatchNorm's settings


_LITERALS = {"True": True, "False": False, "None": None}


class _Source:
    """The classes of an archive's source files; a file is read when one of its classes is asked for."""

    def __init__(self, files: Mapping[str, Callable[[], str]]) -> None:
        self._files = files
        self._declarations: dict[str, dict[str, _Declaration]] = {}

    def declaration(self, module: str, name: str) -> _Declaration:
        """What is said of a class; nothing where the archive has no text of it."""
        path = f"code/{module.replace('.', '/')}.py"
        if path not in self._declarations:
            read = self._files.get(path)
            self._declarations[path] = _declarations(read()) if read else {}
        return self._declarations[path].get(name) or _Declaration()


def _declarations(text: str) -> dict[str, _Declaration]:
    found: dict[str, _Declaration] = {}
    current = _Declaration()
    for line in text.splitlines():
        if line.startswith("class "):
            current = found[line[6:].partition("(")[0]] = _Declaration(is_module="(Module)" in line)
        elif line.startswith("  "):
            current.read(line)
    return found
