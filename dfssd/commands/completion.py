"""``dfssd completion``: the script that lets a shell complete commands, keys, and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dfssd.commands import COMMANDS, TRAIN
from dfssd.commands.options import Option, Usage, shown
from dfssd.config import KEYS
from dfssd.config.arguments import OPTIMIZERS, argument
from dfssd.config.schema import TERM_CHECKS
from dfssd.config.values import BOOLEAN, Check, OneOf, Or

SHELLS = ("bash", "zsh", "fish")

USAGE = Usage(
    (Option("shell", OneOf(SHELLS), "the shell that reads the script: bash, zsh, or fish", required=True),),
    positional=("shell",),
    examples=(
        ("bash >> ~/.bashrc", "from the next shell on; in this one: source <(dfssd completion bash)"),
        ("zsh > ~/.zfunc/_dfssd", "a folder in fpath, before compinit"),
        ("fish > ~/.config/fish/completions/dfssd.fish", "at once"),
    ),
)


def run(words: Sequence[str], program: str) -> int:
    """Print the script for a shell.

    Args:
        words: Its name.
        program: What was typed before the name of the command; the scripts are for ``dfssd``.
    """
    print(WRITERS[USAGE.read(words)["shell"]](tables()), end="")
    return 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(f"{program} completion", "Print a script that lets a shell complete commands, keys, and values.")


@dataclass(frozen=True)
class Values:
    """What may follow the ``=`` of a key.

    Attributes:
        words: Words that are values, such as ``true``.
        files: The name of a file or a folder is one, too.
    """

    words: tuple[str, ...]
    files: bool


Keys = Mapping[str, Values]


def tables() -> dict[str, Keys]:
    """The keys of every command, and their values; those of ``train`` are the table of the configuration."""
    trained = _keys_of_train()
    found: dict[str, Keys] = {}
    for name, command in COMMANDS.items():
        usages = [value for value in vars(import_module(command.module)).values() if isinstance(value, Usage)]
        if usages:  # one, or one for each of its verbs
            own = {option.name: values_of(option.check) for usage in usages for option in usage.options}
            found[name] = {**(trained if any(usage.others for usage in usages) else {}), **own}
        else:  # it takes the keys of a run
            found[name] = {**trained, "out": Values((), True)} if name != TRAIN else trained
    return found


def values_of(check: Check) -> Values:
    """What completes a value with this range; nothing for numbers."""
    if isinstance(check, OneOf):
        return Values(tuple(map(shown, check.choices)), False)
    if isinstance(check, Or):
        inner = values_of(check.check)
        return Values((*map(shown, check.extra), *inner.words), inner.files)
    return Values((), "str" in check.type.split(" | "))


def _keys_of_train() -> dict[str, Values]:
    """Our keys, the options of the terms, and the arguments of Ultralytics that a training takes."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    from dfssd import resources
    from dfssd.distillation.schedules import SCHEDULES
    from dfssd.distillation.terms import described_options, installed_terms

    found = {name: values_of(key.check) for name, key in KEYS.items()}
    recipes = sorted(file.stem for file in (resources.folder("cfg") / "recipes").glob("*.yaml"))
    found["recipe"] = Values(tuple(recipes), True)
    found["unsup_schedule"] = Values(tuple(SCHEDULES), False)
    found["pseudo"] = found["pseudo.mode"]
    for name in installed_terms():
        found |= {f"{name}.{option}": values_of(check) for option, check in TERM_CHECKS.items()}
        found[f"{name}.schedule"] = Values(tuple(SCHEDULES), False)
        for option, described in described_options(name).items():
            found[f"{name}.{option}"] = Values(described.choices, False)
    for name, default in DEFAULT_CFG_DICT.items():
        own = argument(name)
        if not own.refused and name not in found:
            found[name] = values_of(own.check) if own.check else _values_like(default)
    found["optimizer"] = Values(OPTIMIZERS, False)
    return found


def _values_like(default: Any) -> Values:
    """What completes a value of which only the default is known."""
    return values_of(BOOLEAN) if isinstance(default, bool) else Values((), default is None or isinstance(default, str))


def _cases(keys: Keys) -> Iterable[tuple[list[str], Values]]:
    """The keys with the same values, together."""
    groups: dict[Values, list[str]] = {}
    for name, values in keys.items():
        groups.setdefault(values, []).append(name)
    for values, names in groups.items():
        yield names, values


def _shell_cases(table: Mapping[str, Keys], words: str, files: str) -> str:
    """``case`` branches of bash and zsh, from ``command:key`` to what sets the candidates."""
    lines = []
    for command, keys in table.items():
        for names, values in _cases(keys):
            if values.words or values.files:
                branch = "|".join(f"{command}:{name}" for name in names)
                parts = [words.format(" ".join(values.words))] if values.words else []
                lines.append(f"    {branch}) {'; '.join([*parts, *([files] if values.files else [])])} ;;")
    return "\n".join(lines)


def _shell_keys(table: Mapping[str, Keys], name: str) -> str:
    """``case`` branches of bash and zsh, from a command to its keys."""
    return "\n".join(
        f"    {command}) {name}{' '.join(f'{key}=' for key in sorted(keys))}{_END[name]} ;;"
        for command, keys in table.items()
    )


_END = {"keys='": "'", "keys=(": ")"}
"""How the beginning of an assignment ends."""


def bash(table: Mapping[str, Keys]) -> str:
    """The script for bash, whose line editor takes ``=`` for the end of a word."""
    return f"""# completion of dfssd in bash, written by: dfssd completion bash
_dfssd() {{
  local line="${{COMP_LINE:0:COMP_POINT}}" command={TRAIN} commands='{" ".join(table)}' keys='' words='' files='' found
  local word="${{line##*[[:space:]]}}" before=''
  local -a typed
  read -ra typed <<< "$line"
  if [[ ${{#typed[@]}} -gt 2 || "$line" == *[[:space:]] ]] && [[ " $commands " == *" ${{typed[1]-}} "* ]]; then
    command="${{typed[1]}}"
  elif [[ ${{#typed[@]}} -gt 2 || ( ${{#typed[@]}} -eq 2 && "$line" == *[[:space:]] ) ]]; then
    commands=''
  fi
  [[ "$command" == "${{typed[1]-}}" && "$word" != "$command" ]] && commands=''
  if [[ "$word" == *=* ]]; then
    before="${{word%%=*}}="
    case "$command:${{word%%=*}}" in
{_shell_cases(table, "words='{}'", "files=yes")}
    esac
    word="${{word#*=}}"
    [[ "$COMP_WORDBREAKS" == *=* ]] && before=''
    while IFS= read -r found; do COMPREPLY+=("$before$found"); done < <(
      compgen -W "$words" -- "$word"
      [[ -n "$files" ]] && compgen -f -- "$word"
    )
    [[ -n "$files" ]] && compopt -o filenames 2> /dev/null
  else
    case "$command" in
{_shell_keys(table, "keys='")}
    esac
    while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -W "$commands $keys" -- "$word")
    [[ ${{#COMPREPLY[@]}} -eq 1 && "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace 2> /dev/null
  fi
  return 0
}}
complete -F _dfssd dfssd
"""


def zsh(table: Mapping[str, Keys]) -> str:
    """The script for zsh: the completion function itself, for a file ``_dfssd`` in ``fpath`` or to be sourced."""
    return f"""#compdef dfssd
# completion of dfssd in zsh, written by: dfssd completion zsh
_dfssd() {{
  local command={TRAIN}
  local -a commands keys
  commands=({" ".join(table)})
  (( CURRENT > 2 && ${{commands[(Ie)${{words[2]}}]}} )) && command="${{words[2]}}"
  if [[ "${{words[CURRENT]}}" == *=* ]]; then
    local key="${{words[CURRENT]%%=*}}"
    compset -P '*='
    case "$command:$key" in
{_shell_cases(table, "compadd -- {}", "_files")}
    esac
  else
    case "$command" in
{_shell_keys(table, "keys=(")}
    esac
    (( CURRENT == 2 )) && compadd -- $commands
    compadd -S '' -- $keys
  fi
}}
if [[ "$funcstack[1]" == _dfssd ]]; then _dfssd "$@"; else compdef _dfssd dfssd; fi
"""


def fish(table: Mapping[str, Keys]) -> str:
    """The script for fish, whose candidates are whole words."""
    names = " ".join(table)
    lines = [
        "# completion of dfssd in fish, written by: dfssd completion fish",
        "function __dfssd_command",
        "    set -l typed (commandline -opc)",
        f"    if set -q typed[2]; and contains -- $typed[2] {names}",
        "        test $typed[2] = $argv[1]",
        "    else",
        f"        test $argv[1] = {TRAIN}",
        "    end",
        "end",
        "function __dfssd_files",
        "    set -l parts (string split -m 1 = -- (commandline -ct))",
        "    if set -q parts[2]; and contains -- $parts[1] $argv",
        "        for file in $parts[2]*",
        "            test -d $file; and echo $parts[1]=$file/; or echo $parts[1]=$file",
        "        end",
        "    end",
        "end",
    ]
    for name, command in COMMANDS.items():
        first = f"complete -c dfssd -f -n 'test (count (commandline -opc)) -eq 1' -a {name}"
        lines.append(f"{first} -d '{command.summary}'")
    for command_name, keys in table.items():
        for key_names, values in _cases(keys):
            candidates = [f"{key}={word}" for key in sorted(key_names) for word in ("", *values.words)]
            entry = f"complete -c dfssd -f -n '__dfssd_command {command_name}' -a"
            lines.append(f"{entry} '{' '.join(candidates)}'")
            if values.files:
                lines.append(f"{entry} '(__dfssd_files {' '.join(sorted(key_names))})'")
    return "\n".join(lines) + "\n"


WRITERS = {"bash": bash, "zsh": zsh, "fish": fish}
"""Shell -> the function that writes its script."""
