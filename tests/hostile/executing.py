"""Files that would run something. Every payload that runs leaves a canary; none may ever exist.

The payloads are real: `LIVE` of them are run by Python's own pickle in a test, to prove that the
canary sings when they are.
"""

import pickle as op
from base64 import b64encode
from struct import pack

from .assembler import (
    FALSE,
    MAGIC,
    NONE,
    ORDERED_DICT,
    REBUILD,
    archive,
    byte_text,
    call,
    dict_of,
    integer,
    integers,
    layer,
    legacy,
    legacy_state_dict,
    list_of,
    named,
    ordered_dict,
    pickled,
    stacked,
    state_dict,
    text,
    torch_entries,
    torch_zip,
    tuple_of,
)
from .case import Expected, hostile, mentioned, noted, unsafe, unsafe_or_broken

CANARY = "CANARY"
SHELL = text(f"echo sang > {CANARY}")
PYTHON = text(f"open('{CANARY}', 'w').write('sang')")
ARGV = list_of(text("touch"), text(CANARY))
NOTHING = op.SHORT_BINBYTES + b"\x02N."

# What is called, with what, and how a finding must name it.
PAYLOADS: dict[str, tuple[str, str, tuple[bytes, ...]]] = {
    "os_system": ("os", "system", (SHELL,)),
    "posix_system": ("posix", "system", (SHELL,)),
    "nt_system": ("nt", "system", (SHELL,)),
    "os_popen": ("os", "popen", (SHELL,)),
    "os_execvp": ("os", "execvp", (text("touch"), ARGV)),
    "subprocess_popen": ("subprocess", "Popen", (ARGV,)),
    "subprocess_check_output": ("subprocess", "check_output", (ARGV,)),
    "commands_getoutput": ("commands", "getoutput", (SHELL,)),
    "builtins_eval": ("builtins", "eval", (PYTHON,)),
    "builtins_exec": ("builtins", "exec", (PYTHON,)),
    "python_2_eval": ("__builtin__", "eval", (PYTHON,)),
    "python_2_execfile": ("__builtin__", "execfile", (text("/etc/passwd"),)),
    "builtins_import": ("builtins", "__import__", (text("bnlint_bait"),)),
    "builtins_compile": ("builtins", "compile", (PYTHON, text("x"), text("exec"))),
    "builtins_open": ("builtins", "open", (text(CANARY), text("w"))),
    "io_open": ("io", "open", (text(CANARY), text("w"))),
    "builtins_breakpoint": ("builtins", "breakpoint", ()),
    "runpy_run_path": ("runpy", "run_path", (text("bnlint_bait.py"),)),
    "runpy_run_module": ("runpy", "run_module", (text("bnlint_bait"),)),
    "importlib_import_module": ("importlib", "import_module", (text("bnlint_bait"),)),
    "pty_spawn": ("pty", "spawn", (ARGV,)),
    "socket_create_connection": ("socket", "create_connection", (tuple_of(text("127.0.0.1"), integer(9)),)),
    "ctypes_cdll": ("ctypes", "CDLL", (text("libc.so.6"),)),
    "webbrowser_open": ("webbrowser", "open", (text("http://127.0.0.1:9/"),)),
    "shutil_rmtree": ("shutil", "rmtree", (text("/nonexistent"),)),
    "pickle_loads": ("pickle", "loads", (op.SHORT_BINBYTES + b"\x02N.",)),
    "marshal_loads": ("marshal", "loads", (op.SHORT_BINBYTES + b"\x01N",)),
    "pkgutil_resolve_name": ("pkgutil", "resolve_name", (text("os:system"),)),
    "timeit_timeit": ("timeit", "timeit", (PYTHON,)),
    "cprofile_run": ("cProfile", "run", (PYTHON,)),
    "profile_run": ("profile", "run", (PYTHON,)),
    "pdb_run": ("pdb", "run", (PYTHON,)),
    "bdb_run": ("bdb", "Bdb.run", (PYTHON,)),
    "trace_run": ("trace", "Trace.run", (PYTHON,)),
    "code_interact": ("code", "interact", ()),
    "asyncio_subprocess": ("asyncio.unix_events", "_UnixSubprocessTransport._start", ()),
    "multiprocessing_spawn": ("multiprocessing.util", "spawnv_passfds", (text("touch"), ARGV, tuple_of())),
    "distutils_spawn": ("distutils.spawn", "spawn", (ARGV,)),
    "pip_main": ("pip", "main", (ARGV,)),
    "dill_loads": ("dill", "loads", (NOTHING,)),
    "cloudpickle_loads": ("cloudpickle", "loads", (NOTHING,)),
    "pickle5_loads": ("pickle5", "loads", (NOTHING,)),
    "joblib_load": ("joblib", "load", (text("other.joblib"),)),
    "subinterpreter": ("_xxsubinterpreters", "run_string", (integer(0), PYTHON)),
    "torch_load": ("torch", "load", (text("other.pth"),)),
    "torch_hub_load": ("torch.hub", "load", (text("evil/repo"), text("net"))),
    "torch_collect_env": ("torch.utils.collect_env", "run", (SHELL,)),
    "torch_dynamo": ("torch._dynamo.guards", "GuardBuilder.get", (PYTHON,)),
    "torch_jit_unsupported": ("torch.jit.unsupported_tensor_ops", "execWrapper", (PYTHON, NONE, NONE)),
    "torch_cpp_extension": ("torch.utils.cpp_extension", "load_inline", (text("x"), text("int x;"))),
    "torch_bottleneck": ("torch.utils.bottleneck.__main__", "run_cprofile", (PYTHON, dict_of([]))),
    "torch_inductor_codecache": ("torch._inductor.codecache", "compile_file", (text("x"), text("y"), text("z"))),
    "numpy_runstring": ("numpy.testing._private.utils", "runstring", (PYTHON, dict_of([]))),
    "numpy_crackfortran": ("numpy.f2py.crackfortran", "myeval", (PYTHON,)),
    "numpy_load": ("numpy", "load", (text("other.npy"),)),
    "through_torch_to_os": ("torch", "serialization.os.system", (SHELL,)),
}  # fmt: skip
LIVE = (
    "os_system",
    "posix_system",
    "subprocess_popen",
    "builtins_eval",
    "builtins_exec",
    "builtins_open",
    "cprofile_run",
)


def payload(label: str = "os_system") -> bytes:
    module, name, arguments = PAYLOADS[label]
    return call(stacked(module, name) if "." in name else named(module, name), *arguments)


def _names(label: str) -> str:
    module, name, _ = PAYLOADS[label]
    return rf"{module}\W{name}".replace(".", r"\W")


def _unsafe(label: str) -> Expected:
    return unsafe(_names(label))


@hostile(_unsafe, "model.pkl", each={label: label for label in PAYLOADS})
def calls(label: str) -> bytes:
    """A raw pickle that calls something that runs code, opens files or reaches the network."""
    return pickled(payload(label), protocol=4)


SYSTEM = unsafe(r"(os|posix|nt)\Wsystem")
STORAGE = layer()["bn.weight"].identity() + op.BINPERSID
FOUR, ONE = integers([4]), integers([1])


@hostile(SYSTEM, each={
    "in_a_value": dict_of([(text("state_dict"), state_dict(layer())), (text("epoch"), payload())]),
    "in_a_key": dict_of([(payload(), NONE), (text("state_dict"), state_dict(layer()))]),
    "and_forgotten": payload() + op.POP + state_dict(layer()),
    "in_the_metadata": state_dict(layer(), dict_of([(text("_metadata"), payload())])),
    "in_the_hooks": ordered_dict([(text("x"), call(REBUILD, STORAGE, integer(0), FOUR, ONE, FALSE, payload()))]),
    "under_a_mark": op.MARK + payload() + op.POP_MARK + state_dict(layer()),
    "memoised": named("os", "system") + op.BINPUT + b"\5" + op.POP + op.BINGET + b"\5" + tuple_of(SHELL) + op.REDUCE,
    "by_stack_global": call(stacked("os", "system"), SHELL),
    "by_names_from_the_memo": (
        text("system") + op.BINPUT + b"\1" + op.POP + text("os") + op.BINGET + b"\1" + op.STACK_GLOBAL
        + tuple_of(SHELL) + op.REDUCE
    ),
    "by_inst": op.MARK + SHELL + op.INST + b"os\nsystem\n",
    "by_obj": op.MARK + named("os", "system") + SHELL + op.OBJ,
    "by_newobj": named("os", "system") + tuple_of(SHELL) + op.NEWOBJ,
    "by_newobj_ex": named("os", "system") + tuple_of(SHELL) + op.EMPTY_DICT + op.NEWOBJ_EX,
    "with_arguments_from_the_memo": (
        tuple_of(SHELL) + op.BINPUT + b"\2" + op.POP + named("os", "system") + op.BINGET + b"\2" + op.REDUCE
    ),
    "as_a_default_factory": call(named("collections", "defaultdict"), payload()),
    "with_a_newline_name": call(op.GLOBAL + b"os\nsystem\n", SHELL),
})  # fmt: skip
def hides(body: bytes) -> bytes:
    """The call of os.system stands where a careless reader does not look."""
    return torch_zip(data_pkl=pickled(body, protocol=4))


@hostile(unsafe("computed|result|eval|getattr|partial|attrgetter|itemgetter"), each={
    "a_getattr": call(call(named("builtins", "getattr"), named("os", "path"), text("system")), SHELL),
    "a_partial": call(call(named("functools", "partial"), named("os", "system"), SHELL)),
    "a_call": call(call(named("builtins", "eval"), text("__import__('os').system")), SHELL),
    "an_attrgetter": call(call(named("operator", "attrgetter"), text("system")), named("os", "path")),
    "an_itemgetter": call(call(named("operator", "itemgetter"), integer(0)), list_of(named("os", "system"))),
    "a_method": call(call(named("builtins", "getattr"), named("lib", "Thing"), text("method")), SHELL),
})  # fmt: skip
def calls_the_result_of(body: bytes) -> bytes:
    """What is called was itself computed: no name says what it is."""
    return torch_zip(data_pkl=pickled(body, protocol=4))


OS_SYSTEM = named("os", "system")
DEQUE = named("collections", "deque")
MAPPED = call(named("builtins", "map"), OS_SYSTEM, list_of(SHELL))


@hostile(SYSTEM, each={
    "map_and_deque": call(DEQUE, MAPPED),
    "map_and_counter": call(named("collections", "Counter"), MAPPED),
    "map_and_ordered_dict": call(named("collections", "OrderedDict"), MAPPED),
    "map_and_fromkeys": call(stacked("collections", "OrderedDict.fromkeys"), MAPPED),
    "map_and_tuple": call(named("builtins", "tuple"), MAPPED),
    "map_and_fromiter": call(named("numpy", "fromiter"), MAPPED, text("f8")),
    "starmap": call(DEQUE, call(named("itertools", "starmap"), OS_SYSTEM, list_of(tuple_of(SHELL)))),
    "filter": call(DEQUE, call(named("builtins", "filter"), OS_SYSTEM, list_of(SHELL))),
    "atexit": call(named("atexit", "register"), OS_SYSTEM, SHELL),
    "finalize": call(named("weakref", "finalize"), ORDERED_DICT, OS_SYSTEM, SHELL),
    "rebuild_from_type": call(
        named("torch._tensor", "_rebuild_from_type_v2"), OS_SYSTEM, named("torch", "Tensor"), tuple_of(SHELL), NONE
    ),
    "default_factory": call(
        named("operator", "getitem"),
        call(named("collections", "defaultdict"), call(named("functools", "partial"), OS_SYSTEM, SHELL)),
        text("key"),
    ),
    "another_module": call(stacked("posixpath", "os.system"), SHELL),
})  # fmt: skip
def calls_through(body: bytes) -> bytes:
    """Nothing dangerous is called by the pickle: what it calls takes os.system and calls that."""
    return torch_zip(data_pkl=pickled(body, protocol=4))


@hostile(unsafe("extension|copyreg|system|posix"), each={
    "ext1": op.EXT1 + b"\x01",
    "ext2": op.EXT2 + pack("<H", 300),
    "ext4": op.EXT4 + pack("<i", 1 << 20),
    "ext4_negative": op.EXT4 + pack("<i", -1),
})  # fmt: skip
def extension(body: bytes) -> bytes:
    """A copyreg extension code: which function it is, only the loading process knows."""
    return torch_zip(data_pkl=pickled(body + tuple_of(SHELL) + op.REDUCE))


@hostile(unsafe(r"system|Popen"), each={
    "on_a_function": named("os", "system") + dict_of([(text("a"), integer(1))]) + op.BUILD,
    "on_an_instance": op.MARK + ARGV + op.INST + b"subprocess\nPopen\n" + dict_of([]) + op.BUILD,
    "with_a_setstate_of_the_file": (
        call(named("lib", "Thing")) + dict_of([(text("__setstate__"), named("os", "system"))]) + op.BUILD
        + SHELL + op.BUILD
    ),
})  # fmt: skip
def build(body: bytes) -> bytes:
    """BUILD calls __setstate__, which an earlier BUILD may have put there."""
    return torch_zip(data_pkl=pickled(body))


@hostile(mentioned(r"(os|posix)\Wsystem"), each={
    "global": named("os", "system"),
    "stack_global": stacked("os", "system"),
    "as_an_argument": call(named("lib", "Thing"), named("os", "system")),
})  # fmt: skip
def names_only(body: bytes) -> bytes:
    """os.system is named and not called by the pickle itself."""
    return torch_zip(data_pkl=pickled(dict_of([(text("f"), body)]), protocol=4))


@hostile(noted("lib|Thing|getattr|partial|Namespace|DictConfig|AttributeDict"), each={
    "class": call(named("lib", "Thing")),
    "class_with_state": call(named("lib", "Thing")) + dict_of([(text("a"), integer(1))]) + op.BUILD,
    "newobj": named("lib", "Thing") + op.EMPTY_TUPLE + op.NEWOBJ,
    "newobj_ex": named("lib", "Thing") + op.EMPTY_TUPLE + op.EMPTY_DICT + op.NEWOBJ_EX,
    "inst": op.MARK + op.INST + b"lib\nThing\n",
    "namespace": call(named("argparse", "Namespace")) + dict_of([(text("lr"), integer(1))]) + op.BUILD,
    "omegaconf": call(named("omegaconf.dictconfig", "DictConfig")),
    "lightning": call(named("pytorch_lightning.utilities.parsing", "AttributeDict")),
    "getattr": call(named("builtins", "getattr"), named("lib", "Thing"), text("method")),
    "partial": call(named("functools", "partial"), named("lib", "Thing")),
})  # fmt: skip
def unknown(value: bytes) -> bytes:
    """An ordinary training checkpoint that needs a class of its own to load."""
    body = dict_of([(text("state_dict"), state_dict(layer())), (text("hyper_parameters"), value)])
    return torch_zip(data_pkl=pickled(body, protocol=4))


# -- other places ------------------------------------------------------------------------------------


@hostile(SYSTEM, "model.pkl", each={
    "second": pickled(NONE) + pickled(payload()),
    "third": pickled(NONE) * 2 + pickled(payload()),
    "after_broken": pickled(payload()) + b"\xff" * 50,
})  # fmt: skip
def stacked_pickles(data: bytes) -> bytes:
    """Several pickles in a row in one file: pickle.load in a loop runs them all."""
    return data


@hostile(unsafe_or_broken(), each={
    "in_a_persistent_id": tuple_of(text("storage"), payload(), text("0"), text("cpu"), integer(4)) + op.BINPERSID,
    "before_it_breaks": payload() + b"\xff\xff\xff",
    "before_it_ends": payload() + op.BINUNICODE + pack("<I", 1 << 30),
    "before_an_underflow": payload() + op.POP + op.POP + op.POP,
})  # fmt: skip
def broken_after_the_call(body: bytes) -> bytes:
    """Python runs the call before it meets the damage."""
    return torch_zip(data_pkl=pickled(body))


@hostile(unsafe_or_broken(), "model.pkl")
def raw_broken_after_the_call() -> bytes:
    """The same as a raw pickle."""
    return pickled(payload() + b"\xff\xff\xff")


@hostile(unsafe_or_broken())
def archive_broken_after_the_call() -> bytes:
    """data.pkl would run something, and a record that it names is missing."""
    body = dict_of([(text("x"), payload()), (text("state_dict"), state_dict(layer()))])
    entries = torch_entries(data_pkl=pickled(body))
    return archive([entry for entry in entries if not str(entry.name).endswith("data/3")])


_LEGACY_PLACES = {
    "the_object": {"root": dict_of([(text("m"), legacy_state_dict(layer())), (text("x"), payload())])},
    "the_system_info": {"system": dict_of([(text("little_endian"), payload())])},
    "the_protocol": {"protocol": payload() + op.POP + integer(1001)},
    "the_magic": {"magic": integer(MAGIC) + payload() + op.POP},
    "the_list_of_keys": {"keys": payload() + op.POP + list_of(*(text(str(n)) for n in range(5)))},
}


@hostile(SYSTEM, each=_LEGACY_PLACES)
def legacy_call_in(told: dict[str, bytes]) -> bytes:
    """A file of old torch is five pickles in a row, and each of them can run something."""
    return legacy(**told)


@hostile(SYSTEM, "model.pkl")
def load_from_bytes_around_a_payload() -> bytes:
    """pickle.dump of a tensor nests a whole torch file in _load_from_bytes: with a payload in that."""
    inner = legacy({}, root=dict_of([(text("x"), payload())]))
    nested = call(named("torch.storage", "_load_from_bytes"), op.BINBYTES + pack("<I", len(inner)) + inner)
    return pickled(dict_of([(text("bn.running_var"), nested)]), protocol=3)


@hostile(unsafe_or_broken(), "model.pkl")
def load_from_bytes_nine_deep() -> bytes:
    """The same, nine times over."""
    inner = pickled(payload())
    for _ in range(9):
        root = call(named("torch.storage", "_load_from_bytes"), op.BINBYTES + pack("<I", len(inner)) + inner)
        inner = legacy({}, root=root)
    return inner


@hostile(SYSTEM)
def payload_in_constants_pkl() -> bytes:
    """The other pickle of a TorchScript archive."""
    body = named("__torch__", "Net") + op.EMPTY_TUPLE + op.NEWOBJ + dict_of([(text("training"), FALSE)]) + op.BUILD
    data_pkl, *others = torch_entries({}, pickled(body))
    constants = data_pkl.but(name="model/constants.pkl", data=pickled(payload()))
    code = data_pkl.but(name="model/code/__torch__.py", data=b"class Net(Module):\n  pass\n")
    return archive([data_pkl, constants, code, *others])


@hostile(SYSTEM)
def named_by_python_2_text() -> bytes:
    """STACK_GLOBAL of two strings of Python 2."""
    body = byte_text(b"os") + byte_text(b"system") + op.STACK_GLOBAL + tuple_of(SHELL) + op.REDUCE
    return torch_zip(data_pkl=pickled(dict_of([(text("x"), body)]), protocol=4))


@hostile(SYSTEM, "model.pkl", each={
    "protocol_0": b"cos\nsystem\n(S'echo sang > CANARY'\ntR.",
    "protocol_0_inst": b"(S'echo sang > CANARY'\nios\nsystem\n.",
    "protocol_1": b"cos\nsystem\n(U\x14echo sang > CANARY  tR.",
    "python_2_unicode": b"cos\nsystem\n(Vecho sang > CANARY\ntR.",
})  # fmt: skip
def old_protocol(data: bytes) -> bytes:
    """No PROTO opcode: the file looks like text."""
    return data


@hostile(SYSTEM, "model.pth")
def old_protocol_behind_blank_lines() -> bytes:
    """A pickle of protocol 0 under the most common name of a checkpoint."""
    return b"(lp0\ncos\nsystem\n(S'echo sang > CANARY'\ntRa."


@hostile(unsafe(r"import|exec|eval|base64|builtins"), "model.pkl")
def encoded_payload() -> bytes:
    """exec of something decoded: the name of the executor is what counts."""
    code = b64encode(b"open('CANARY', 'w').write('sang')").decode()
    return pickled(call(named("builtins", "exec"), text(f"import base64; exec(base64.b64decode('{code}'))")))


@hostile(unsafe("bnlint_bait|import|unknown|computed|result"), "model.pkl")
def bait_called() -> bytes:
    """A module that leaves a canary when it is imported, and a call of a result of it."""
    return pickled(call(call(named("bnlint_bait", "sing"))))


@hostile(noted("bnlint_bait"))
def bait_named() -> bytes:
    """A module that leaves a canary when it is imported, beside a healthy layer."""
    body = dict_of([(text("state_dict"), state_dict(layer())), (text("x"), call(named("bnlint_bait", "sing")))])
    return torch_zip(data_pkl=pickled(body))
