"""What an address on chain may be, wherever one is met: the settings, the services' word, the check-up."""

import socket
from ipaddress import ip_address

import pytest

from miner.errors import ConfigurationError
from miner.http.server import _bind
from miner.settings.addresses import why_not_public, why_unreachable
from miner.settings.settings import Settings

ENDPOINT = "wss://entrypoint-finney.opentensor.ai:443"

NOWHERE = [
    "192.168.1.20", "192.168.0.1", "10.0.0.7", "10.255.255.1", "172.16.0.1", "172.31.255.254", "169.254.3.4",
    "100.64.0.1", "100.127.255.254", "127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "192.0.2.1", "198.51.100.9", "203.0.113.7", "198.18.0.1",
    "fe80::1", "fe80::1%eth0", "2600::1%eth0", "::1", "::", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "ff0e::1",
    "2001:db8::1", "100::1", "::ffff:8.8.8.8", "::ffff:10.0.0.1", "::8.8.8.8", "4000::1",
]  # fmt: skip
ANYWHERE = [
    "8.8.8.8",
    "1.2.3.4",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "2600::1",
    "2a00:1450::1",
]


@pytest.mark.parametrize("address", NOWHERE)
def test_what_the_world_can_not_reach(address: str) -> None:
    assert why_not_public(address) is not None
    assert why_unreachable(ip_address(address), "::") is not None


@pytest.mark.parametrize("address", ANYWHERE)
def test_what_it_can(address: str) -> None:
    assert why_not_public(address) is None
    assert why_unreachable(address, "::") is None


@pytest.mark.parametrize(
    ("address", "host", "fits"),
    [
        ("8.8.8.8", "0.0.0.0", True),
        ("8.8.8.8", "127.0.0.1", True),  # a proxy may hand it on
        ("8.8.8.8", "box", True),
        ("8.8.8.8", "::", True),
        ("8.8.8.8", "0:0:0:0:0:0:0:0", True),
        ("8.8.8.8", "2600::1", False),
        ("8.8.8.8", "::1", False),
        ("2600::1", "0.0.0.0", False),
        ("2600::1", "192.168.1.20", False),
        ("2600::1", "::", True),
        ("2600::1", "2600::1", True),
    ],
)
def test_the_family_has_to_be_one_that_is_listened_on(address: str, host: str, fits: bool) -> None:
    assert (why_unreachable(address, host) is None) is fits


def test_a_port_on_every_address_of_ipv6_takes_ipv4_too() -> None:
    with _bind("MINER_AXON_PORT", "::", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
        port = listener.getsockname()[1]
        for here in ("127.0.0.1", "::1"):
            socket.create_connection((here, port), timeout=10).close()


@pytest.mark.parametrize("network", ["finney", "test"])
@pytest.mark.parametrize("endpoint", ["", ENDPOINT])
@pytest.mark.parametrize("address", NOWHERE)
def test_it_is_refused_where_validators_are_elsewhere(network: str, endpoint: str, address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(subtensor_network=network, subtensor_chain_endpoint=endpoint, axon_external_ip=address)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"AXON_EXTERNAL_IP={address}: a public address ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7"])
def test_an_ipv6_address_needs_a_port_that_listens_there(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"AXON_EXTERNAL_IP=2600::1: .*MINER_AXON_HOST={host}"):
        Settings.load(subtensor_network="finney", axon_external_ip="2600::1", miner_axon_host=host)
    settings = Settings.load(subtensor_network="finney", axon_external_ip="2600::1", miner_axon_host="::")
    assert settings.notes() == []


@pytest.mark.parametrize("address", [*NOWHERE, "2600::1"])
def test_on_a_chain_that_may_be_ones_own_it_is_a_warning(address: str) -> None:
    for network in ("local", "ws://127.0.0.1:9944"):
        (note,) = Settings.load(subtensor_network=network, axon_external_ip=address).notes()
        assert note.startswith(f"AXON_EXTERNAL_IP={ip_address(address)} is ")
    assert Settings.load(axon_external_ip=address).notes() == [], "standalone publishes nothing"


@pytest.mark.parametrize("network", ["finney", "test", "local", "ws://127.0.0.1:9944"])
def test_a_public_one_is_no_fault_anywhere(network: str) -> None:
    assert Settings.load(subtensor_network=network, axon_external_ip="8.8.8.8").notes() == []
