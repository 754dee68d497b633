"""What container engines, the PCI bus and vmstat say, from trees; and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.model.errors import TraceError
from numatrace.model.machine import DEVICES_LIMIT, Device, Devices
from numatrace.model.process import PORT_COUNT, Deployment, Process
from numatrace.record.machine.containers import named
from numatrace.record.machine.gpus import read_devices
from numatrace.record.machine.sysfs import read_memory

if TYPE_CHECKING:
    from pathlib import Path

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


ID = "0123456789abcdef" * 4
OTHER = "f" * 64
DOCKER = Deployment("docker.service", "system", "docker", ID)
PODMAN = Deployment("", "", "podman", ID)


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def docker_config(**labels: str) -> dict:
    return {
        "StreamConfig": {},
        "State": {"Running": True, "Pid": 4711},
        "ID": ID,
        "Config": {"Hostname": ID[:12], "Image": "ollama/ollama:0.11.4", "Labels": labels},
        "Name": "/ollama",
    }


def test_a_docker_container_has_a_name_an_image_and_its_compose_service(tmp_path):
    labels = {"com.docker.compose.project": "ai", "com.docker.compose.service": "llm"}
    write(tmp_path / f"var/lib/docker/containers/{ID}/config.v2.json", docker_config(**labels))
    found = named(DOCKER, (), tmp_path)
    assert (found.container_name, found.image) == ("ollama", "ollama/ollama:0.11.4")
    assert (found.compose_project, found.compose_service) == ("ai", "llm")
    assert (found.unit, found.container_id) == ("docker.service", ID)
    assert Deployment.from_json(found.to_json()) == found


@pytest.mark.parametrize("key", ["data-root", "graph"])
def test_docker_may_keep_its_files_elsewhere(tmp_path, key):
    write(tmp_path / "etc/docker/daemon.json", {key: "/srv/docker"})
    write(tmp_path / f"srv/docker/containers/{ID}/config.v2.json", docker_config())
    assert named(DOCKER, (), tmp_path).container_name == "ollama"


@pytest.mark.parametrize("option", ["--data-root=/srv/docker", "--graph\0/srv/docker"])
def test_the_daemon_may_be_told_where_on_its_command_line(tmp_path, option):
    write(tmp_path / "proc/12/comm", "dockerd\n")
    write(tmp_path / "proc/12/cmdline", f"/usr/bin/dockerd\0-H\0fd://\0{option}\0")
    write(tmp_path / f"srv/docker/containers/{ID}/config.v2.json", docker_config())
    assert named(DOCKER, (), tmp_path).container_name == "ollama"


def podman_list(id_: str = ID) -> list:
    metadata = {"image-name": "docker.io/ollama/ollama:latest", "name": "llm"}
    return [
        {"id": OTHER, "names": ["no"], "metadata": "{}"},
        {"id": id_, "names": ["llm"], "metadata": json.dumps(metadata)},
    ]


def test_a_podman_container_has_a_name_and_an_image(tmp_path):
    write(tmp_path / "var/lib/containers/storage/overlay-containers/containers.json", podman_list())
    found = named(PODMAN, ("/machine.slice/libpod-x.scope",), tmp_path)
    assert (found.container_name, found.image) == ("llm", "docker.io/ollama/ollama:latest")


def test_a_rootless_podman_container_is_found_in_its_users_home(tmp_path):
    write(
        tmp_path / "etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"
    )
    folder = "home/ann/.local/share/containers/storage/overlay-containers"
    write(tmp_path / folder / "containers.json", podman_list())
    path = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"
    assert named(PODMAN, (path,), tmp_path).container_name == "llm"
    assert named(PODMAN, (path.replace("1000", "1001"),), tmp_path).container_name == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Name", "Config", "Image", "Labels", "id", "names", "metadata"]), inner
        )
    ),
    max_leaves=12,
)


@unhurried
@given(json_values | st.text(max_size=50))
def test_damaged_files_of_engines_name_nothing_that_does_not_fit(tmp_path_factory, value):
    root = tmp_path_factory.mktemp("root")
    write(root / "etc/docker/daemon.json", value)
    write(root / f"var/lib/docker/containers/{ID}/config.v2.json", value)
    write(root / "var/lib/containers/storage/overlay-containers/containers.json", value)
    for deployment in (DOCKER, PODMAN):
        found = named(deployment, (), root)
        assert Deployment.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_huge_names_deep_json_and_strange_ids_name_nothing(tmp_path):
    path = tmp_path / f"var/lib/docker/containers/{ID}/config.v2.json"
    write(path, docker_config() | {"Name": "x" * 100_000})
    assert named(DOCKER, (), tmp_path).container_name == ""
    assert named(DOCKER, (), tmp_path).image == "ollama/ollama:0.11.4"
    other = tmp_path / "other"
    write(other / f"var/lib/docker/containers/{ID}/config.v2.json", "[" * 100_000)
    assert named(DOCKER, (), other) == DOCKER
    traversal = Deployment(container_kind="docker", container_id="../../etc")
    assert named(traversal, (), tmp_path) == traversal
    assert named(Deployment(), (), tmp_path) == Deployment()


# --- devices


def device(root: Path, address: str, class_: str, node: str, driver: str = "") -> None:
    folder = root / "sys/bus/pci/devices" / address
    write(folder / "class", f"{class_}\n")
    write(folder / "numa_node", f"{node}\n")
    if driver:
        (folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")


def test_gpus_and_accelerators_with_their_nodes(tmp_path):
    device(tmp_path, "0000:81:00.0", "0x030200", "1", "nvidia")
    device(tmp_path, "0000:03:00.0", "0x120000", "0", "habanalabs")
    device(tmp_path, "0000:05:00.0", "0x030000", "-1", "ast")
    device(tmp_path, "0000:06:00.0", "0x038000", "many")
    device(tmp_path, "0000:07:00.0", "0x020000", "0", "ixgbe")
    device(tmp_path, "0000:08:00.0", "garbage", "0")
    found = read_devices(tmp_path)
    assert found.devices == (
        Device("0000:03:00.0", "accelerator", "habanalabs", 0),
        Device("0000:05:00.0", "display", "ast", None),
        Device("0000:06:00.0", "display", "", None),
        Device("0000:81:00.0", "display", "nvidia", 1),
    )
    assert Devices.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_no_more_devices_than_a_document_takes(tmp_path):
    for number in range(DEVICES_LIMIT + 5):
        device(tmp_path, f"0000:{number:04x}", "0x030000", "0")
    assert len(Devices.from_json(read_devices(tmp_path).to_json()).devices) == DEVICES_LIMIT


@pytest.mark.parametrize(
    "value",
    [
        {"devices": [{"address": "x" * 33, "kind": "display"}]},
        {"devices": [{"address": "x", "kind": "display", "node": 1024}]},
        {"devices": [{"address": "x", "kind": "display", "node": -1}]},
        {"devices": [{}] * 1000},
        {"devices": {}},
        {"devices": ["x"]},
    ],
)
def test_nonsense_of_devices_is_refused(value):
    with pytest.raises(TraceError):
        Devices.from_json(value)


# --- memory's counters


def test_lines_of_vmstat_that_tell_of_short_memory_and_of_moves(tmp_path):
    wanted = [
        *("numa_pte_updates", "numa_pages_migrated", "pswpin"),
        *("pswpout", "pgscan_direct", "pgscan_kswapd"),
        *("pgsteal_direct", "pgsteal_kswapd", "allocstall_normal"),
        *("allocstall_movable", "pgmigrate_success", "pgmigrate_fail"),
        *("workingset_refault_file", "pgdemote_kswapd", "pgpromote_success"),
    ]
    other = ["nr_free_pages", "pgfault", "thp_fault_alloc", "pgscan_anon", "workingset_nodes"]
    text = "".join(f"{name} {number}\n" for number, name in enumerate([*wanted, *other]))
    write(tmp_path / "proc/vmstat", text)
    assert read_memory(tmp_path).vmstat == {name: number for number, name in enumerate(wanted)}


# --- the fields of a process's row


@pytest.mark.parametrize(
    "value",
    [
        {"relation": "enemy"},
        {"version": "x" * 65},
        {"listens": [65_536]},
        {"listens": [-1]},
        {"listens": ["80"]},
        {"listens": [True]},
        {"listens": list(range(PORT_COUNT + 1))},
        {"listens": {}},
        {"deployment": {"container_name": 3}},
        {"deployment": {"image": "x" * 5000}},
    ],
)
def test_nonsense_of_a_process_is_refused(value):
    with pytest.raises(TraceError):
        Process.from_json({"tgid": 1, "comm": "x"} | value)


def test_a_row_of_an_older_recorder_is_read():
    process = Process.from_json({"tgid": 1, "comm": "x", "deployment": {"unit": "a.service"}})
    assert (process.version, process.listens, process.relation) == ("", (), "")
    assert process.deployment == Deployment("a.service")
