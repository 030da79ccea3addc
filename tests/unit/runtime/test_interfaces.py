"""Tables: which interface is on the way to the other ranks, and what of it gloo and NCCL are told."""

import socket
import struct

import pytest

from bert_pytorch.runtime.interfaces import (
    Interface,
    choose_network,
    interfaces_here,
    parse_inet6,
    peers_to_reach,
    source_address,
)

LO = Interface("lo", ("127.0.0.1", "::1"))
DOCKER = Interface("docker0", ("172.17.0.1",))
ETH = Interface("eth0", ("10.0.0.5", "fe80::1"))
HSN = Interface("hsn0", ("192.168.1.5",))
IB = Interface("ib0", ("10.1.0.5",))
GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
DEFAULT = "192.0.2.1"


@pytest.mark.parametrize(
    ("environment", "interfaces", "routes", "variables", "said"),
    [
        ({}, [LO, ETH, HSN], {"n1": "192.168.1.5"}, {GLOO: "hsn0", NCCL: "=hsn0"}, "hsn0, on the route to n1"),
        ({}, [LO, ETH], {"n1": "fe80::1"}, {GLOO: "eth0", NCCL: "=eth0"}, "eth0"),
        # rank 0's own name is the loopback's, as Debian writes /etc/hosts: the next machine tells
        ({}, [LO, ETH], {"n1": "127.0.0.1", "n2": "10.0.0.5"}, {GLOO: "eth0", NCCL: "=eth0"}, "the route to n2"),
        ({}, [LO, ETH], {"n1": "127.0.0.1", DEFAULT: "10.0.0.5"}, {GLOO: "eth0", NCCL: "=eth0"}, "default route"),
        ({}, [DOCKER, ETH], {"n1": "172.17.0.1", "n2": "10.0.0.5"}, {GLOO: "eth0", NCCL: "=eth0"}, "eth0"),
        # NCCL takes InfiniBand by itself
        ({}, [ETH, IB], {"n1": "10.0.0.5"}, {GLOO: "eth0"}, "eth0"),
        # what is set stays
        ({GLOO: "x", NCCL: "y"}, [ETH], {"n1": "10.0.0.5"}, {}, f"{GLOO}=x, {NCCL}=y, as it was set"),
        ({NCCL: "^docker"}, [ETH], {"n1": "10.0.0.5"}, {GLOO: "eth0"}, f"{NCCL}=^docker as it was set"),
        ({GLOO: ""}, [ETH], {"n1": "10.0.0.5"}, {GLOO: "eth0", NCCL: "=eth0"}, "eth0"),
        # nothing is guessed
        ({}, [LO, DOCKER], {"n1": "127.0.0.1", DEFAULT: "172.17.0.1"}, {}, "gloo and NCCL choose"),
        ({}, [], {}, {}, "gloo and NCCL choose"),
    ],
)
def test_the_interface_on_the_route_is_told_where_nobody_did(
    environment: dict[str, str],
    interfaces: list[Interface],
    routes: dict[str, str],
    variables: dict[str, str],
    said: str,
) -> None:
    peers = peers_to_reach("n1", ("n1", "n2"))
    found = choose_network(environment, interfaces, peers, routes.get, nccl=True)
    assert found.variables == variables
    assert said in found.reason


def test_without_nccl_only_gloo_is_told() -> None:
    found = choose_network({}, [ETH], ["n1"], {"n1": "10.0.0.5"}.get, nccl=False)
    assert found.variables == {GLOO: "eth0"}


@pytest.mark.parametrize(
    "name",
    [
        "lo",
        "docker0",
        "docker_gwbridge",
        "br-0123456789ab",
        "veth12ab",
        "virbr0",
        "cni0",
        "flannel.1",
        "cali9f",
        "ifb0",
    ],
)
def test_what_ends_inside_the_machine_is_no_network(name: str) -> None:
    found = choose_network({}, [Interface(name, ("10.0.0.5",))], ["n1"], lambda peer: "10.0.0.5", nccl=True)
    assert found.variables == {}


@pytest.mark.parametrize("name", ["br0", "bond0", "enp3s0f1", "local0", "hsn0", "ens5", "wlan0"])
def test_what_leaves_the_machine_is_one(name: str) -> None:
    found = choose_network({}, [Interface(name, ("10.0.0.5",))], ["n1"], lambda peer: "10.0.0.5", nccl=False)
    assert found.variables == {GLOO: name}


def test_few_of_many_machines_are_asked() -> None:
    hosts = tuple(f"n{number}" for number in range(1, 1001))
    assert peers_to_reach("n1", hosts) == ["n1", "n2", "n1000", DEFAULT]
    assert peers_to_reach("", ()) == [DEFAULT]


def test_the_loopback_is_found_with_its_addresses_as_the_kernel_has_them() -> None:
    here = {interface.name: interface.addresses for interface in interfaces_here()}
    assert "127.0.0.1" in here["lo"]
    assert set(here) <= {name for _, name in socket.if_nameindex()} | {name for name in here if ":" in name}


def test_the_way_to_oneself_begins_at_oneself() -> None:
    assert source_address("127.0.0.1") == "127.0.0.1"
    assert source_address("a..b") is None


def test_addresses_of_ipv6_are_read_as_the_kernel_writes_them() -> None:
    packed = struct.pack(">8H", 0xFE80, 0, 0, 0, 0xFC00, 0xFF, 0xFE00, 1).hex()
    assert parse_inet6(f"{packed} 04 40 20 80     eth0\nnonsense\n") == [("eth0", "fe80::fc00:ff:fe00:1")]
