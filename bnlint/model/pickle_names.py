"""What it means that a pickle names a class or function, in three written tiers.

Loading a pickle imports what it names and calls what it wants. `ALLOW` is what torch and numpy
themselves write to rebuild tensors and arrays. `DANGER` is what runs code or reaches outside: the
standard library, torch and numpy are judged by what is known to be harmless in them, since lists of
bad names have always had holes (CVE-2025-1716, GHSA-vvpj-8cmc-gx39). Everything else is `NOTE`: a
class or function of someone's own, which its author may well mean. This is no proof of safety: what
a `NOTE` does when it is made is not known.
"""

from __future__ import annotations

import sys

from bnlint.model.tensor import ITEM_SIZE

ALLOW, NOTE, DANGER = "allow", "note", "danger"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BUILTIN_TYPES = _names(
    "bool bytearray bytes complex dict float frozenset int list long object range set slice str tuple unicode xrange"
    " Ellipsis NoneType NotImplemented"
)
_REBUILD_ARRAYS = _names("_reconstruct scalar _frombuffer")
_RANDOM_STATES = _names("__RandomState_ctor __randomstate_ctor __bit_generator_ctor __generator_ctor")

# What torch and numpy write; torch's own list is `_get_allowed_globals` in torch/_weights_only_unpickler.py.
ALLOWED: dict[str, frozenset[str]] = {
    "collections": _names("OrderedDict Counter defaultdict deque"),
    "ordereddict": _names("OrderedDict"),
    "builtins": _BUILTIN_TYPES,
    "__builtin__": _BUILTIN_TYPES,
    "copyreg": _names("_reconstructor __newobj__"),
    "copy_reg": _names("_reconstructor __newobj__"),
    "_codecs": _names("encode"),
    "torch": frozenset(ITEM_SIZE) | _names(
        "Size Tensor device dtype layout strided sparse_coo"
        " per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric"
        " per_channel_affine_float_qparams contiguous_format preserve_format channels_last channels_last_3d"
        " int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7"
    ),
    "torch._utils": _names(
        "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_qtensor _rebuild_parameter"
        " _rebuild_parameter_with_state _rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_nested_tensor"
        " _rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass _rebuild_xla_tensor"
        " _rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor"
    ),
    "torch._tensor": _names("_rebuild_from_type _rebuild_from_type_v2 Tensor"),
    "torch.tensor": _names("_rebuild_from_type _rebuild_from_type_v2 Tensor"),
    "torch.autograd.variable": _names("Variable"),
    "torch.nn.parameter": _names("Parameter Buffer UninitializedParameter UninitializedBuffer"),
    "torch.nn.backends.thnn": _names("_get_thnn_function_backend"),
    "torch.serialization": _names("_get_layout"),
    "torch.storage": _names("TypedStorage UntypedStorage _TypedStorage _UntypedStorage _load_from_bytes"),
    "torch.torch_version": _names("TorchVersion"),
    "torch.jit._pickle": _names(
        "build_intlist build_tensorlist build_doublelist build_boollist build_tensor_from_id restore_type_tag"
    ),
    "numpy": frozenset(ITEM_SIZE) | _names("ndarray dtype bool_ str_ bytes_ generic longdouble intc uintc"),
    "numpy.core.multiarray": _REBUILD_ARRAYS,
    "numpy._core.multiarray": _REBUILD_ARRAYS,
    "numpy.core.numeric": _REBUILD_ARRAYS,
    "numpy._core.numeric": _REBUILD_ARRAYS,
    "numpy.random": _RANDOM_STATES,
    "numpy.random._pickle": _RANDOM_STATES,
    "joblib.numpy_pickle": _names("NumpyArrayWrapper NDArrayWrapper"),
}  # fmt: skip

# What else of the standard library, torch and numpy makes plain values and nothing else.
HARMLESS: dict[str, frozenset[str]] = {
    "_codecs": _names("decode"),
    "abc": _names("ABC ABCMeta"),
    "argparse": _names("Namespace"),
    "array": _names("array _array_reconstructor"),
    "builtins": _names("Exception KeyError RuntimeError ValueError getattr memoryview property reversed type zip"),
    "contextlib": _names("nullcontext"),
    "copy": _names("copy deepcopy"),
    "dataclasses": _names("Field InitVar KW_ONLY _HAS_DEFAULT_FACTORY_CLASS _MISSING_TYPE"),
    "datetime": _names("date datetime time timedelta timezone tzinfo"),
    "decimal": _names("Context Decimal"),
    "fractions": _names("Fraction"),
    "functools": _names("partial partialmethod"),
    "inspect": _names("Parameter Signature _ParameterKind _empty"),
    "io": _names("BytesIO StringIO"),
    "_io": _names("BytesIO StringIO"),
    "itertools": _names("chain count cycle islice product repeat"),
    "logging": _names("Formatter Logger PlaceHolder RootLogger getLogger"),
    "operator": _names("attrgetter itemgetter methodcaller"),
    "random": _names("Random SystemRandom"),
    "re": _names("_compile compile"),
    "time": _names("struct_time"),
    "types": _names("EllipsisType GenericAlias MappingProxyType NoneType NotImplementedType SimpleNamespace"),
    "weakref": _names("WeakKeyDictionary WeakSet WeakValueDictionary ref"),
    "zoneinfo": _names("ZoneInfo ZoneInfo._unpickle"),
    "numpy": _names("matrix poly1d recarray record"),
    "numpy.core.records": _names("recarray record"),
    "numpy.lib.polynomial": _names("poly1d"),
    "numpy.random.bit_generator": _names("__pyx_unpickle_SeedSequence"),
    "numpy.ma.core": _names("MaskedArray _mareconstruct"),
    "numpy.matrixlib.defmatrix": _names("matrix"),
    "torch": _names("Generator"),
    "torch._C": _names("Generator"),
}

# Modules whose classes (CapWords) only hold values until someone uses them.
CLASSES = (
    "collections.", "configparser.", "enum.", "ipaddress.", "numbers.", "pathlib.", "queue.", "string.", "typing.",
    "uuid.",
    "numpy.dtypes.", "numpy.polynomial.", "numpy.random.",
    "torch.amp.", "torch.ao.", "torch.autograd.", "torch.cuda.amp.", "torch.distributions.", "torch.fx.",
    "torch.legacy.", "torch.masked.", "torch.nested.", "torch.nn.", "torch.optim.", "torch.quantization.",
    "torch.sparse.", "torch.utils._pytree.", "torch.utils.data.", "torch.utils.hooks.", "torch.utils.weak.",
    "torch.distributed._composable.", "torch.distributed._shard.", "torch.distributed._tensor.",
    "torch.distributed.algorithms.", "torch.distributed.checkpoint.", "torch.distributed.device_mesh.",
    "torch.distributed.fsdp.", "torch.distributed.optim.", "torch.distributed.tensor.",
)  # fmt: skip
RUNS_SOURCE_TEXT = ("torch.fx.graph_module",)  # a GraphModule is rebuilt by running Python text from the file

# To name one of these is enough: whoever names it wants it called, if need be by another function.
EXECUTORS = _names(
    "_ctypes _interpreters _pickle _posixsubprocess _socket _thread _winapi _xxsubinterpreters bdb cProfile code"
    " codeop marshal nt pdb pickle platform"
    " popen2 posix profile pty pydoc runpy shelve shutil signal site smtplib socket socketserver ssl subprocess sys"
    " telnetlib tempfile threading timeit trace webbrowser zipimport imp ftplib pkgutil linecache"
)
EXECUTING_PACKAGES = _names(
    "asyncio concurrent ctypes dbm distutils ensurepip http idlelib importlib lib2to3 multiprocessing os sqlite3"
    " urllib venv xmlrpc IPython fabric invoke paramiko pexpect pip pkg_resources requests setuptools urllib3"
)
EXECUTING_BUILTINS = _names(
    "__import__ breakpoint compile delattr eval exec exit filter globals input locals map open quit setattr vars"
)
EXECUTING_NAMES = _names(
    "__import__ check_output eval exec execfile exec_command exec_module fork import_module import_string load_library"
    " load_module popen read_pickle resolve_name run_code run_command run_module run_path runsource runstring spawn"
    " startfile system _create_code _create_function _import_module _make_function _make_skel_func subimport"
)
# Packages that are made of pickles in pickles: their loaders run what they are given.
UNPICKLERS = _names("cloudpickle dill joblib jsonpickle pickle5 pandas")
LOADERS = _names("decode load loads read_pickle")
TYPES_OF_CODE = _names("CodeType FunctionType LambdaType MethodType ModuleType")
# The packages of the standard library; what lies "below" its other modules is someone's own.
PACKAGES = _names(
    "asyncio collections compression concurrent ctypes curses dbm distutils email encodings ensurepip html http idlelib"
    " importlib json lib2to3 logging msilib multiprocessing os pathlib pydoc_data re sqlite3 string sysconfig tkinter"
    " tomllib turtledemo unittest urllib venv wsgiref xml xmlrpc zipfile zoneinfo"
)


def tier(module: str, name: str, called: bool) -> str:
    """`ALLOW`, `NOTE` or `DANGER` for a global of a pickle; `called` is True where the pickle calls it.

    A name with dots is looked up attribute by attribute (PEP 3154), so what lies behind an allowed
    module is not itself allowed: ("torch.serialization", "os.system") is os.system.
    """
    if name in ALLOWED.get(module, ()) or is_storage_or_tensor_class(module, name):
        return ALLOW
    if module.startswith(("__torch__.", "<torch")) or module == "__torch__":
        return ALLOW  # TorchScript's own classes, compiled from the archive; torch.package's references
    if module.startswith("<"):
        return DANGER  # an extension code, or the call of a computed result
    module, name = python_3_name(module, name)
    if executes(module, name):
        return DANGER
    if not called:
        return NOTE
    if judged_by_what_is_known(module):
        return NOTE if harmless(module, name) else DANGER
    return DANGER if name.rpartition(".")[2] in EXECUTING_NAMES else NOTE


def python_3_name(module: str, name: str) -> tuple[str, str]:
    """What `pickle.load` makes of a name that Python 2 wrote: ("commands", "getoutput") lies in subprocess."""
    from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

    module, name = NAME_MAPPING.get((module, name), (module, name))
    return IMPORT_MAPPING.get(module, module), name


def executes(module: str, name: str) -> bool:
    """True for what runs code, or reaches files, processes and networks, as soon as someone calls it."""
    first, dot, _ = name.partition(".")
    if dot and first in (*EXECUTORS, *EXECUTING_PACKAGES, "builtins", "__builtins__"):
        return True
    if module == "builtins":
        return first in EXECUTING_BUILTINS
    if module == "types":
        return first in TYPES_OF_CODE
    if module in ("io", "_io", "codecs"):
        return first in ("FileIO", "open", "open_code")
    package = module.partition(".")[0]
    if package in UNPICKLERS:
        return name.rpartition(".")[2] in LOADERS
    return module in EXECUTORS or package in EXECUTING_PACKAGES


def judged_by_what_is_known(module: str) -> bool:
    """True for torch, numpy and the standard library, where a call that is not known to be harmless is not."""
    package, dot, _ = module.partition(".")
    if package in ("numpy", "torch"):
        return True
    return package in sys.stdlib_module_names and (not dot or package in PACKAGES)


def harmless(module: str, name: str) -> bool:
    """True where to call it only makes a value."""
    if name in HARMLESS.get(module, ()) or module == "torch.return_types":
        return True
    a_class = all(part.lstrip("_")[:1].isupper() for part in name.split("."))
    return a_class and f"{module}.".startswith(CLASSES) and module not in RUNS_SOURCE_TEXT


def is_storage_or_tensor_class(module: str, name: str) -> bool:
    """True for torch.FloatStorage, torch.cuda.HalfTensor and their like."""
    holds_them = module in ("torch", "torch.cuda", "torch.sparse", "torch.cuda.sparse")
    return holds_them and name.endswith(("Storage", "Tensor")) and name.isidentifier()
