"""What a fix does, in words: the diff, the summary, and the recipe for what no fix can give back."""

from __future__ import annotations

from bnlint.fixing.edit import NewTensor
from bnlint.fixing.repairs import unmendable
from bnlint.model.batchnorm import COUNTER
from bnlint.model.tensor import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnlint.fixing.edit import Edit
    from bnlint.model.tensor import Tensor

_SHOWN = 4  # numbers of a tensor
_READ = 1 << 16  # bytes of a tensor whose numbers are shown

RECIPE = """\
New statistics come from data alone. Average them over your training data, with the transforms of training:
    model.load_state_dict(torch.load({path!r}, weights_only=True))
    torch.optim.swa_utils.update_bn(train_loader, model, device=device)
    torch.save(model.state_dict(), "recalibrated.pth")"""


def diff(edit: Edit, old: str, new: str) -> Iterator[str]:
    """The changes of a state dict, a line for each key that goes and for each that comes, in the order of the file."""
    place = f" ({edit.state_dict.key})" if edit.state_dict.key else ""
    yield f"--- {old}{place}"
    yield f"+++ {new}{place}"
    for key, tensor in edit.state_dict.tensors.items():
        name, replaced = edit.name(key), edit.replaced.get(key)
        if key in edit.dropped:
            yield f"-{_line(key, tensor)}"
        elif replaced is not None:
            yield f"-{_line(key, tensor, with_numbers=True)}"
            yield f"+{_line(name, replaced, with_numbers=True)}"
        elif name != key:
            yield f"-{_line(key, tensor)}"
            yield f"+{_line(name, tensor)}"
        if key in edit.added:
            added, counter = edit.added[key]
            yield f"+{_line(edit.name(added), counter, with_numbers=True)}"


def summary(edit: Edit) -> str:
    """What an edit does, in one line: "renamed 122 keys, added 20 num_batches_tracked"."""
    renamed = sum(key in edit.names for key in edit.state_dict.tensors)
    counters = [key for key in edit.replaced if edit.state_dict.tensors[key].dtype != edit.replaced[key].dtype]
    restored = {key.rpartition(".")[0] for key in edit.replaced.keys() - set(counters)}
    done = [
        (renamed, f"renamed {_count(renamed, 'key')}"),
        (len(edit.added), f"added {len(edit.added)} {COUNTER}"),
        (len(counters), f"cast {len(counters)} {COUNTER} to int64"),
        (len(edit.dropped), f"dropped {len(edit.dropped)} {COUNTER} without statistics"),
        (len(restored), f"restored the running statistics of {_count(len(restored), 'layer')}"),
    ]
    return ", ".join(words for number, words in done if number) or "nothing to repair"


def beyond_repair(edit: Edit, path: str) -> list[str]:
    """What to do about statistics that no fix can give back; nothing where there are none such."""
    layers = unmendable(edit)
    if not layers:
        return []
    (name, what), *rest = layers
    more = f", and {_count(len(rest), 'more layer')}" if rest else ""
    return [f"Not repaired: {what} in {name or 'the model'}{more}.", *RECIPE.format(path=path).split("\n")]


def _line(name: str, tensor: Tensor | NewTensor, with_numbers: bool = False) -> str:
    form = f"{name}  {tensor.dtype} {list(tensor.shape)}"
    return f"{form} = {_numbers(tensor)}" if with_numbers else form


def _numbers(tensor: Tensor | NewTensor) -> str:
    data = tensor.data if isinstance(tensor, NewTensor) else tensor.raw(_READ)
    values = decode(data, tensor.dtype, tensor.shape)
    shown = ", ".join(f"{value:.9g}" if isinstance(value, float) else str(value) for value in values[:_SHOWN])
    return f"{shown}, ..." if len(values) > _SHOWN else shown


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
