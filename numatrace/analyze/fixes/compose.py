"""The fix for a container of docker compose: a file with what such a file can say, and the rest.

A service can be given CPUs (`cpuset`) and variables; memory nodes it cannot (compose-spec has no
such key), so these are set on the container between its creation and its start.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from numatrace.analyze.fixes import common, engine, ollama
from numatrace.analyze.fixes.quoting import RefusedError, require_text, shell
from numatrace.analyze.fixes.settings import by_variables, changes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.fixes.settings import Changes
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation

DEPLOYMENT = "docker compose"
KINDS = frozenset({"bind", "distribute", "threads", "cpuset"})
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
FILE = "compose.numatrace.yaml"
LABEL = '{{index .Config.Labels "com.docker.compose.project.%s"}}'


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as a file and commands. Raises RefusedError where none can be exact."""
    if plan.kind == "interleave":
        raise RefusedError(
            "a memory policy needs numactl in the service's image, cap_add: [SYS_NICE] and numactl"
            " before its command: that has to be done in the project's own files"
        )
    common.require(plan, KINDS, "docker compose")
    common.check_evictable(plan)
    project, service, name = _names(situation)
    found = changes(situation, plan)
    client = f"docker exec {name} ollama"
    compose = f"docker compose -p {project}"
    return Fix(
        id=f"{plan.kind}/compose",
        deployment=DEPLOYMENT,
        title=plan.title,
        steps=(
            *ollama.parameter_steps(situation, found.parameters, client),
            _find_step(compose, service),
            Step(
                f"tee \"$folder\"/{FILE} <<'END'\n{document(situation, plan, found, service)}END",
                "What is added to the service; the project's own files stay as they are.",
            ),
            Step(f"{compose} stop {service}", "Stop it: pages in use cannot be dropped."),
            *engine.evict_steps(plan, "docker", name),
            Step(
                f'{_files(added=True)} {compose} --project-directory "$folder" up --no-start'
                f" --no-deps {service}",
                "Make the service's container again, with the file added.",
            ),
            *_mems(plan, compose, service),
            Step(f"{compose} start {service}", "Start it."),
        ),
        verify=common.verify_steps(
            situation, common.pid_by_name(situation.server), needs_root=True
        ),
        undo=(
            *ollama.parameter_undo(situation, found.parameters, client),
            _find_step(compose, service),
            Step(
                f'{_files(added=False)} {compose} --project-directory "$folder" up -d --no-deps'
                f" --force-recreate {service}",
                "Make the container again from the project's own files alone.",
            ),
            Step(f'rm "$folder"/{FILE}', "Remove the added file."),
        ),
        notes=(*found.notes, *_notes(plan), *common.remarks(situation, plan)),
        lint=passed,
        plan=plan.id,
    )


def document(situation: Situation, plan: Plan, found: Changes, service: str) -> str:
    """Return the compose file with the service's additions, as YAML."""
    variables = by_variables(situation, found)
    lines = ["services:", f'  "{service}":']  # `on` or `1` alone would be no name to YAML
    if plan.kind != "threads":
        lines.append(f'    cpuset: "{format_cpulist(plan.cpus)}"')
    if variables is None:
        common.check_argv(situation.root)
        lines.append(f"    entrypoint: [{_text(found.argv[0])}]")
        lines.append(f"    command: [{', '.join(map(_text, found.argv[1:]))}]")
    environment = found.environment | (variables or {})
    if environment:
        lines.append("    environment:")
        lines += [f"      {name}: {_text(value)}" for name, value in environment.items()]
    if len(lines) == 2:
        lines[-1] += " {}"
    return "\n".join(lines) + "\n"


def _names(situation: Situation) -> tuple[str, str, str]:
    deployment = situation.root.deployment
    project, service = deployment.compose_project, deployment.compose_service
    if not PROJECT.fullmatch(project) or not SERVICE.fullmatch(service):
        raise RefusedError("the name of its compose service cannot be written into a command")
    return project, service, engine.name_of(situation)


def _find_step(compose: str, service: str) -> Step:
    one = f'"$({compose} ps -a -q {service} | head -n 1)"'
    folder = f"docker inspect --format {shell(LABEL % 'working_dir')} {one}"
    files = f"docker inspect --format {shell(LABEL % 'config_files')} {one}"
    own = f"tr , '\\n' | grep -v -F -e /{FILE} | paste -s -d : -"
    return Step(
        f'folder="$({folder})" && files="$({files} | {own})" && test -d "$folder" &&'
        ' test -n "$files"',
        "Find the project's folder and files; they are kept as $folder and $files in this shell.",
    )


def _files(*, added: bool) -> str:
    return f'COMPOSE_FILE="$files:$folder/{FILE}"' if added else 'COMPOSE_FILE="$files"'


def _mems(plan: Plan, compose: str, service: str) -> tuple[Step, ...]:
    if plan.kind == "threads":
        return ()
    return (
        Step(
            f"docker update --cpuset-mems={format_cpulist(plan.nodes)}"
            f" $({compose} ps -a -q {service})",
            "Set its memory nodes, which a compose file has no key for.",
        ),
    )


def _notes(plan: Plan) -> list[str]:
    notes = [
        "docker needs root, or membership of the group docker.",
        f"Name {FILE} whenever you start the project (docker compose -f … -f {FILE}), or take its"
        " lines into the project's own file.",
    ]
    if plan.kind != "threads":
        notes.append(
            "A compose file can say cpuset: and not the memory nodes: repeat the docker update"
            " whenever compose has made the container again."
        )
    return notes


def _text(text: str) -> str:
    """Return a text as a YAML string; compose replaces `$`, so it is doubled."""
    require_text(text)
    if not text.isprintable():
        raise RefusedError("an argument holds control characters")
    return json.dumps(text.replace("$", "$$"), ensure_ascii=False)
