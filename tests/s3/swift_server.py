#!/usr/bin/python3
"""A server of S3 in one process: OpenStack Swift with its s3api, on 127.0.0.1.

  swift_server.py DIRECTORY

The directory, on a file system with user attributes, takes the objects; when the server is ready, `port` in it says where. Keys:
test:tester and testing. It ends when its standard input does, so that it can't outlive who started it.

Swift is made to run as five daemons and a memcached. What they need of each other is little: here they are five listeners of one process, and the
cache is a dictionary.
"""

import os
import pwd
import sys
import threading
import time
import types
from pathlib import Path

import eventlet
from eventlet import wsgi

from swift.common import utils

SERVICES = ("account", "container", "object")
PIPELINE = "catch_errors gatekeeper healthcheck cache listing_formats s3api tempauth bulk slo"
SETTINGS = {"s3api": "location = us-east-1", "tempauth": "user_test_tester = testing .admin"}


class Cache:
    """What Swift keeps in memcached: tokens, and what it knows of containers."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[object, float]] = {}

    def get(self, key: str, **_options: object) -> object:
        value, end = self._values.get(key, (None, 0.0))
        return value if not end or time.time() < end else None

    def set(self, key: str, value: object, time: float = 0, **_options: object) -> None:  # noqa: A002
        self._values[key] = (value, now() + time if time else 0.0)

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:  # noqa: A002
        value = int(self.get(key) or 0) + delta
        self.set(key, value, time=time)
        return value

    def decr(self, key: str, delta: int = 1, time: float = 0) -> int:  # noqa: A002
        return self.incr(key, -delta, time)

    def delete(self, key: str, server_key: str | None = None) -> None:
        self._values.pop(key, None)

    def set_multi(self, mapping: dict, server_key: str | None = None, **options: object) -> None:
        for key, value in mapping.items():
            self.set(key, value, **options)

    def get_multi(self, keys: list[str], server_key: str | None = None) -> list[object]:
        return [self.get(key) for key in keys]


now = time.time


def offer_cache() -> None:
    """As a filter of the proxy's pipeline, which names it by the module and the function."""
    cache = Cache()

    def filter_factory(_settings: dict, **_more: str):  # noqa: ANN202
        def make(application):  # noqa: ANN001, ANN202
            def call(environment: dict, start_response):  # noqa: ANN001, ANN202
                environment["swift.cache"] = cache
                return application(environment, start_response)

            return call

        return make

    module = types.ModuleType("dictionary_cache")
    module.filter_factory = filter_factory
    sys.modules[module.__name__] = module


def write_settings(directory: Path) -> None:
    etc = directory / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    (directory / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = s\nswift_hash_path_prefix = p\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n[swift-constraints]\n"
    )
    common = (
        f"[DEFAULT]\nuser = {pwd.getpwuid(os.geteuid()).pw_name}\nswift_dir = {etc}\ndevices = {directory}/devices\n"
        "mount_check = false\ndisable_fallocate = true\nlog_address = /nonexistent\nlog_udp_host = 127.0.0.1\nlog_udp_port = 9\n"
    )
    text = common + f"[pipeline:main]\npipeline = {PIPELINE} proxy-server\n"
    text += "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
    for name in PIPELINE.split():
        use = "paste.filter_factory = dictionary_cache:filter_factory" if name == "cache" else f"use = egg:swift#{name}"
        text += f"[filter:{name}]\n{use}\n{SETTINGS.get(name, '')}\n"
    (etc / "proxy.conf").write_text(text)
    for name in SERVICES:
        (etc / f"{name}.conf").write_text(
            f"{common}[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n"
            f"fallocate_reserve = 0\nrecon_cache_path = {directory}/cache\n"
        )


def write_rings(etc: Path, ports: dict[str, int]) -> None:
    """Where the services are: one disk, at ports that are others each time."""
    from swift.common.ring import RingBuilder

    for name in SERVICES:
        builder = RingBuilder(4, 1, 1)
        builder.add_dev({
            "id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "disk", "meta": "",
            "ip": "127.0.0.1", "port": ports[name], "replication_ip": "127.0.0.1", "replication_port": ports[name],
        })  # fmt: skip
        builder.rebalance()
        builder.get_ring().save(str(etc / f"{name}.ring.gz"))


def serve(directory: Path) -> None:
    etc = directory / "etc"
    sockets = {name: eventlet.listen(("127.0.0.1", 0), backlog=1024) for name in ("proxy", *SERVICES)}
    ports = {name: listener.getsockname()[1] for name, listener in sockets.items()}
    write_rings(etc, ports)

    from swift.common.http_protocol import SwiftHttpProtocol
    from swift.common.wsgi import loadapp

    pool = eventlet.GreenPool(1000)
    for name, listener in sockets.items():
        application = loadapp(str(etc / f"{name}.conf"), global_conf={"log_name": name})
        pool.spawn(
            wsgi.server, listener, application, utils.NullLogger(), protocol=SwiftHttpProtocol,
            capitalize_response_headers=False, socket_timeout=60, custom_pool=eventlet.GreenPool(1000),
        )  # fmt: skip
    eventlet.sleep(0)
    ready = directory / "port.new"
    ready.write_text(str(ports["proxy"]))
    ready.rename(directory / "port")
    pool.waitall()


def end_with_standard_input() -> None:
    while os.read(0, 1000):
        pass
    os._exit(0)


def main() -> None:
    directory = Path(sys.argv[1]).resolve()
    # Before all is made cooperative: this one waits for real.
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    write_settings(directory)
    utils.set_swift_dir(str(directory / "etc"))
    utils.eventlet_monkey_patch()
    os.environ["TZ"] = "UTC"
    time.tzset()
    eventlet.debug.hub_exceptions(False)
    offer_cache()
    serve(directory)


if __name__ == "__main__":
    main()
