"""The output of a command on a cluster: every line once, in order, each to its own stream."""

import sys

import pytest
import ray
from rich.console import Console

from orchestrator.cluster.relay import Mailbox, forwarded, print_new
from tests.support.ray_clusters import ray_cluster


def talk(mailbox: object) -> None:
    with forwarded(mailbox):
        Console().print("one [b]bold[/b] line")
        print("half a ", end="")
        print("line")
        print("an error", file=sys.stderr)
        print("no end", end="")


@pytest.mark.slow
def test_every_line_arrives_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with ray_cluster(monkeypatch, head_cores=1) as cluster:
        cluster.add_node(num_cpus=1, object_store_memory=10**8)  # its log monitor reads the same folder
        ray.init(cluster.address, log_to_driver=False)
        try:
            mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
            capsys.readouterr()
            ray.get(ray.remote(talk).remote(mailbox))
            print_new(mailbox)
            print_new(mailbox)
            said = capsys.readouterr()
        finally:
            ray.shutdown()
    assert said.out == "one bold line\nhalf a line\nno end\n"
    assert said.err == "an error\n"
