from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from muster.config import read_user_endpoint
from muster.endpoint.template import Rendered, Site, render
from muster.errors import ConfigInvalid

SITE = Site(
    parent_config={"display_name": "Big: machine", "heartbeat_period": 30},
    mapped_identity={
        "local": {"uname": "harper", "uid": 2001, "gecos": "Harper, room 5 # x", "groups": ["a", "b: c"]},
        "globus": {"id": "5f1d3a1e-1a5c-4f6e-8b6c-1f6c6a1d2b3c"},
    },
    env={"HOME": "/home/harper", "PATH": "/usr/bin:/bin"},
)

DEFAULT = """
endpoint_setup: {{ endpoint_setup|default() }}
engine:
  type: GlobusComputeEngine
  provider:
    type: LocalProvider
    init_blocks: 1
    worker_init: {{ worker_init|default() }}

idle_heartbeats_soft: 10
idle_heartbeats_hard: 5760
"""

POLARIS = """
display_name: Polaris at ALCF - debug-scaling queue
engine:
  type: GlobusComputeEngine
  address:
    type: address_by_interface
    ifname: bond0

  strategy:
    type: SimpleStrategy
    max_idletime: 30

  provider:
    type: PBSProProvider
    queue: debug-scaling

    account: {{ ACCOUNT_ID }}

    # Command to be run before starting a worker
    # e.g., "module load Anaconda; source activate parsl_env"
    worker_init: {{ WORKER_INIT_COMMAND|default() }}

    init_blocks: 0
    min_blocks: 0
    max_blocks: 1
    nodes_per_block: {{ NODES_PER_BLOCK|default(1) }}

    walltime: 1:00:00

    launcher:
      type: MpiExecLauncher

idle_heartbeats_soft: 10
idle_heartbeats_hard: 5760
"""

HOSTILE = [
    "a\nallowed_functions: []",
    "a: b",
    "- x",
    "{{ 7*7 }}",
    "{% if",
    "!!python/object/apply:os.system ['id']",
    "&a *a",
    "'",
    '"',
    '", b: "',
    "', b: '",
    "\\",
    "#c",
    "yes",
    "0x10",
    "1e3",
    "~",
    "",
    ":",
    "%TAG",
    "---\nfoo: 1",
    "\u2028x\u0085y",
    "emoji 😀",
    "\x00\x07\x1b[31m",
    "tab\t",
    "\ufeffbom",
    "\uffff\ufffe",
    "a" * 5000,
    "$(id) `id` ; rm -rf ~",
]

TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
NUMBERS = st.one_of(st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
DATA = st.recursive(
    st.one_of(TEXT, NUMBERS, st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=8,
)


def rendered(template: str, values: dict[str, Any] | None = None, runtime: dict[str, Any] | None = None) -> Any:
    return render(template, values or {}, runtime or {}, SITE).document.data


@given(setup=TEXT, init=TEXT)
def test_any_text_arrives_exactly_in_the_default_template(setup: str, init: str) -> None:
    expected = yaml.safe_load(
        DEFAULT.replace("{{ endpoint_setup|default() }}", "").replace("{{ worker_init|default() }}", "")
    )
    expected["endpoint_setup"] = setup
    expected["engine"]["provider"]["worker_init"] = init
    assert rendered(DEFAULT, {"endpoint_setup": setup, "worker_init": init}) == expected


@given(account=DATA, nodes=st.integers(1, 500))
def test_any_data_arrives_exactly_in_the_polaris_template(account: Any, nodes: int) -> None:
    document = rendered(POLARIS, {"ACCOUNT_ID": account, "NODES_PER_BLOCK": nodes})
    provider = document["engine"]["provider"]
    assert provider.pop("account") == account
    assert provider.pop("worker_init") is None
    assert provider.pop("nodes_per_block") == nodes
    assert provider.pop("walltime") == "1:00:00"
    assert provider.keys() == {"type", "queue", "init_blocks", "min_blocks", "max_blocks", "launcher"}
    assert document.keys() == {"display_name", "engine", "idle_heartbeats_soft", "idle_heartbeats_hard"}


@given(value=DATA, key=TEXT)
def test_any_data_arrives_exactly_in_every_position(value: Any, key: str) -> None:
    template = (
        "top:\n  {{ k }}: 1\nlist: [{{ v }}, {{ k }}]\nflow: {a: {{ v }}, {{ k }}: b}\nitems:\n- {{ v }}\n- {{ k }}\n"
    )
    if key == "a":
        key = "b"
    assert rendered(template, {"v": value, "k": key}) == {
        "top": {key: 1},
        "list": [value, key],
        "flow": {"a": value, key: "b"},
        "items": [value, key],
    }


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(
    "line", ['a: "{{ v }}"', "a: '{{ v }}'", "a: {b: '{{ v }}', c: \"{{ v }}\"}", "a: |\n  x {{ v }}"]
)
def test_a_value_inside_quotes_adds_no_key(line: str, hostile: str) -> None:
    try:
        document = rendered(line, {"v": hostile})
    except ConfigInvalid:
        return  # refused is as good
    assert document.keys() == {"a"}
    assert not isinstance(document["a"], dict) or document["a"].keys() == {"b", "c"}


def test_a_user_cannot_add_a_key_that_the_template_has() -> None:
    template = "endpoint_setup: site\n{% for k, v in labels.items() %}{{ k }}: {{ v }}\n{% endfor %}"
    with pytest.raises(ConfigInvalid, match="stands here again"):
        rendered(template, {"labels": {"endpoint_setup": "mine"}})


def test_values_compare_as_plain_text_and_as_json() -> None:
    template = """
    {% if engine == "GlobusComputeEngine" and engine == '"GlobusComputeEngine"' and "GlobusCompute" in engine
          and engine in ["GlobusComputeEngine"] and engine in ['"GlobusComputeEngine"'] and engine != "other"
          and not engine == "GlobusComputeEngin" %}
    right: {{ engine }}
    {% endif %}"""
    assert rendered(template, {"engine": "GlobusComputeEngine"}) == {"right": "GlobusComputeEngine"}


def test_a_set_block_compares_as_the_text_it_will_be() -> None:
    template = """
{% set kind %}{{ engine }}{% endset %}
{% if kind == '"ThreadPoolEngine"' and "Thread" in kind and kind != "ThreadPoolEngine" %}right: {{ kind }}{% endif %}"""
    assert rendered(template, {"engine": "ThreadPoolEngine"}) == {"right": "ThreadPoolEngine"}


def test_the_administrators_text_stays_as_it_stands() -> None:
    template = "a: {{ x|default('{b: 1}') }}\nc: {{ '[1, 2]' }}\nd: {{ 'yes' if true else 'no' }}\ne: x{{ 1 + 1 }}G"
    assert rendered(template) == {"a": {"b": 1}, "c": [1, 2], "d": True, "e": "x2G"}


def test_what_is_computed_from_a_value_is_a_value() -> None:
    template = """
a: {{ "p: {}".format(v) }}
b: {{ "p: " ~ v }}
c: {{ "p: %s"|format(v) }}
d: {{ v|upper }}
e: {{ [v, v]|join(", ") }}
f: {{ v|replace("x", "x: ") }}
g: {{ v|safe }}
h: {{ v|e }}
"""
    value = "x: 1\ny: 2"
    document = rendered(template, {"v": value})
    assert document["a"] == document["b"] == document["c"] == f"p: {value}"
    assert document["d"] == value.upper()
    assert document["e"] == f"{value}, {value}"
    assert document["g"] == document["h"] == value
    assert list(document) == list("abcdefgh")


def test_macros_and_set_blocks_are_finished_text() -> None:
    template = """
{% macro provider(name) %}
type: {{ name }}
queue: q
{% endmacro %}
{% set tail %}soft: {{ soft }}{% endset %}
engine:
  {{ provider(kind)|indent(2) }}
{{ tail }}
"""
    expected = {"engine": {"type": "a: b", "queue": "q"}, "soft": 3}
    assert rendered(template, {"kind": "a: b", "soft": 3}) == expected


def test_shell_escape_makes_one_word_wherever_it_stands() -> None:
    template = """
a: {{ v|shell_escape }}
b: source {{ v|shell_escape }}/bin
c: |
  cd {{ v|shell_escape }}
d: "{{ v|shell_escape }}"
"""
    word = """'a b'"'"'; id'"""
    document = rendered(template, {"v": "a b'; id"})
    assert document == {"a": word, "b": f"source {word}/bin", "c": f"cd {word}\n", "d": word}


def test_inside_a_longer_text_a_value_has_its_json_form() -> None:
    assert rendered("a: source {{ v }}/bin", {"v": "x y"}) == {"a": 'source "x y"/bin'}


def test_the_site_and_the_users_interpreter_are_known() -> None:
    template = """
a: /scratch/{{ mapped_identity.local.uname }}/{{ _GC.mapped_identity.local.uid }}
b: {{ _GC.mapped_identity.local.gecos }}
c: {{ parent_config.display_name }}
d: {{ _GC.user_runtime.python.version }}
e: {{ _GC.env.PATH }}:/opt
f: {{ _GC.parent_config.heartbeat_period }}
g: {{ mapped_identity.local.groups }}
"""
    assert rendered(template, runtime={"python": {"version": "3.11: x"}}) == {
        "a": "/scratch/harper/2001",
        "b": "Harper, room 5 # x",
        "c": "Big: machine",
        "d": "3.11: x",
        "e": "/usr/bin:/bin:/opt",
        "f": 30,
        "g": ["a", "b: c"],
    }


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("\na: {{ ACCOUNT }}", "line 2: the template needs ACCOUNT; give it in user_endpoint_config"),
        ("a: {% if", "line 1: "),
        ("a: {{ 1 / 0 }}", "line 1: ZeroDivisionError"),
        ("a: {{ v.__class__.__mro__ }}", "SecurityError"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ('a: "{{ v }}"', 'write {{ x }}, not "{{ x }}"'),
        ("a: {{ v|map('upper') }}", "cannot be written into a configuration"),
    ],
)
def test_a_template_that_fails_says_where_and_why(template: str, expected: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        rendered(template, {"v": "x"})
    assert expected in caught.value.message()


def test_the_seeds_templates_are_valid_configurations() -> None:
    for template, values in ((DEFAULT, {}), (POLARIS, {"ACCOUNT_ID": "OBIWAN123"})):
        made: Rendered = render(template, values, {}, SITE)
        config = read_user_endpoint(made.document)
        assert (config.idle_heartbeats_soft, config.idle_heartbeats_hard) == (10, 5760)
        assert yaml.safe_load(made.text())["engine"]["type"] == "GlobusComputeEngine"


def test_an_included_file_is_found_beside_the_template(tmp_path: Any) -> None:
    (tmp_path / "part.j2").write_text("b: {{ v }}")
    site = Site(SITE.parent_config, SITE.mapped_identity, SITE.env, tmp_path)
    assert render("{% include 'part.j2' %}", {"v": "x: y"}, {}, site).document.data == {"b": "x: y"}
