"""Which rollout server answers the next request: verl's plug-in of `load_balancer.yaml`.

verl's own load balancer does the same, but its process imports all of verl to count requests: a
tenth of the CPU time of a small run's start. This module imports Ray alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray


class LoadBalancer:
    """Gives each request to the server with the fewest requests, as verl's `RequestLoadBalancer`.

    A response of RIL is one request, so no session is kept on its server.

    Args:
        servers: Ray handles of the rollout servers, by address.
        config: contents of the YAML file, which says no more than this class.
    """

    def __init__(self, servers: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self.servers = dict(servers)
        self.requests = dict.fromkeys(self.servers, 0)

    def require_acquire_fields(self) -> list[str]:
        """What `acquire_server` needs beside the request's id."""
        return []

    def require_release_fields(self) -> list[str]:
        """What `release_server` needs beside the server's address."""
        return []

    def acquire_server(self, request_id: str) -> tuple[str, Any]:
        """Address and handle of the server for a request.

        Raises:
            RuntimeError: no server is left.
        """
        if not self.servers:
            raise RuntimeError("no rollout server is left")
        address = min(self.requests, key=self.requests.__getitem__)
        self.requests[address] += 1
        return address, self.servers[address]

    def release_server(self, server_id: str, request_id: str | None = None) -> None:
        """Count a request as answered."""
        if server_id in self.requests:
            self.requests[server_id] -= 1

    def add_servers(self, servers: Mapping[str, Any]) -> None:
        """Add servers, by address."""
        self.servers |= servers
        self.requests |= dict.fromkeys(servers, 0)

    def remove_servers(self, server_ids: Sequence[str]) -> None:
        """Give no more requests to these addresses."""
        for address in server_ids:
            self.servers.pop(address, None)
            self.requests.pop(address, None)

    def get_all_servers(self) -> list[str]:
        """Addresses of all servers."""
        return list(self.servers)

    def get_total_inflight(self) -> int:
        """Number of requests that wait for their answer."""
        return sum(self.requests.values())

    def get_status(self) -> dict[str, Any]:
        """Requests by server, and their sum."""
        return {
            "servers": dict(self.requests),
            "total_inflight": self.get_total_inflight(),
            "active_servers": len(self.servers),
        }

    def clear_sticky_cache(self) -> dict[str, Any]:
        """Nothing to forget; verl calls it between sampling and training."""
        return {"cleared_entries": 0, "server_loads": dict(self.requests)}


# An environment of its own gives it a new process. Otherwise it takes the one that has imported
# verl to find a free port for the workers, which then serves the rollout worker.
LoadBalancerActor = ray.remote(runtime_env={"env_vars": {"RILBENCH_ACTOR": "load balancer"}})(
    LoadBalancer
)
