"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# Two cores may be busy with a server or a trainer: a slow example is not a failure.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: what passed once passes in CI. `make test-all` draws new ones.
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")
