"""The model by which `benchmarks.scaling` extrapolates: a ring all-reduce of gradients, partly behind a backward pass.

An update of n devices takes, as data parallelism here does it (DistributedDataParallel, gradients summed in fp32 once
an update, in the backward pass of its last micro-batch):

    update = compute + max(0, communication - hidden)
    communication = base + 2 (n - 1) steps of latency + 2 (n - 1) / n × gradients / bandwidth

Assumptions: 2 (n - 1) steps and that share of the bytes are the ring's (nccl-tests, doc/PERFORMANCE.md).  2 m of these
steps go from machine to machine where there are m of them, at the network's latency, the others at that within a
machine; a ring is as fast as the slower of a device's link and a machine's network, which all its devices share.
Trees and switches that add, which NCCL takes where they are faster, are left out.  What can hide communication is the
last micro-batch's backward pass, two thirds of its time (twice the forward pass's products); where a CPU does both,
nothing hides.  Data, dropout and the optimizer cost what they cost one device; devices are equal, none is late, and a
small micro-batch takes as long a sequence as a large one, which flatters many devices that share a batch.
"""

import math
from typing import NamedTuple

GRADIENT_BYTES = 4
"""Of a parameter: fp32."""
BACKWARD_SHARE = 2 / 3
ACHIEVED = 0.8
"""Share of a documented bandwidth that collectives reach (NVIDIA/nccl issue 1264: 376 of NVLink's 450 GB/s)."""


class Network(NamedTuple):
    """What devices talk over: latencies in seconds, bandwidths in bytes a second in one direction."""

    name: str
    source: str
    base: float
    """Seconds of an all-reduce before its first step."""
    devices_per_machine: int
    inner_latency: float
    inner_bandwidth: float
    """Of a device."""
    outer_latency: float
    outer_bandwidth: float
    """Of a machine."""


def _documented(name: str, source: str, latency: float, gigabytes: float) -> Network:
    """Return machines with 8 GPUs on NVLink and a network of so many GB/s a machine.

    Latencies within a machine are NCCL's own tuning constants (src/graph/tuning.cc: Simple protocol, ring, NVLink
    3.4 us a step, 8.4 us before the first), bandwidth NVLink 4's 900 GB/s in both directions (MLPerf inference v4.1,
    H200-SXM-141GBx8).
    """
    return Network(name, source, 8.4e-6, 8, 3.4e-6, ACHIEVED * 450e9, latency, ACHIEVED * gigabytes * 1e9)


NETWORKS = (
    _documented(
        "8 x 400 Gb/s InfiniBand a machine",
        "MLPerf inference v3.1, XE9680_H100_SXM_80GBx8; latency 14 us a step: NCCL, tuning.cc, NET, ring, Simple",
        14e-6,
        400.0,
    ),
    _documented("100 Gb/s Ethernet a machine", "line rate; latency 50 us a step: assumed for TCP", 50e-6, 12.5),
    _documented("10 Gb/s Ethernet a machine", "line rate; latency 50 us a step: assumed for TCP", 50e-6, 1.25),
)


def measured_network(name: str, source: str, smallest_seconds: float, bus_bandwidth: float, ranks: int) -> Network:
    """Return a network of equal links from two measurements of an all-reduce.

    Args:
        name: for tables.
        source: for tables.
        smallest_seconds: of a message of a few bytes.
        bus_bandwidth: bytes a second of a large message (`diagnosis.report.bus_bandwidth`).
        ranks: that took part.
    """
    latency = smallest_seconds / (2 * (ranks - 1))
    return Network(name, source, 0.0, 1, latency, bus_bandwidth, latency, bus_bandwidth)


def all_reduce_seconds(num_bytes: float, devices: int, network: Network) -> float:
    """Return the time of a ring all-reduce by the model above."""
    if devices == 1:
        return 0.0
    machines = math.ceil(devices / network.devices_per_machine)
    steps = 2 * (devices - 1)
    outer = min(steps, 2 * machines) if machines > 1 else 0
    latency = network.base + (steps - outer) * network.inner_latency + outer * network.outer_latency
    bandwidth = min(network.inner_bandwidth, network.outer_bandwidth) if machines > 1 else network.inner_bandwidth
    return latency + steps / devices * num_bytes / bandwidth


def update_seconds(compute: float, communication: float, last_micro_batch: float, *, hides: bool) -> float:
    """Return the time of an update.

    Args:
        compute: seconds of a device's own work.
        communication: seconds of the all-reduce.
        last_micro_batch: seconds of the last micro-batch, forward and backward.
        hides: whether a backward pass goes on while gradients travel.
    """
    hidden = BACKWARD_SHARE * last_micro_batch if hides else 0.0
    return compute + max(0.0, communication - hidden)


class Projected(NamedTuple):
    """An update of n devices, as BERT at a University's table tells it."""

    devices: int
    seconds: float
    communication: float
    speed_up: float
    """Sequences a second, of one device's."""
    expansion: float
    """Speed-up a device."""


def project(
    *, sequence: float, batch: int, grows: bool, micro_batch: int, fixed: float, num_bytes: float,
    devices: int, network: Network, hides: bool,
) -> Projected:  # fmt: skip
    """Project an update.

    Args:
        sequence: seconds of a sequence on one device.
        batch: sequences of an update of one device; if it does not grow, of all together.
        grows: whether each device adds a batch (weak scaling), else they share one (strong scaling).
        micro_batch: sequences of a micro-batch at most.
        fixed: seconds of the optimizer.
        num_bytes: of the gradients.
        devices: how many.
        network: what they talk over.
        hides: of `update_seconds`.
    """
    own = batch if grows else batch / devices
    last = sequence * min(micro_batch, own)
    communication = all_reduce_seconds(num_bytes, devices, network)
    seconds = update_seconds(own * sequence + fixed, communication, last, hides=hides)
    alone = batch * sequence + fixed
    speed_up = (devices if grows else 1) * alone / seconds
    return Projected(devices, seconds, communication, speed_up, speed_up / devices)
