"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# Two cores may be busy with a server or a trainer: a slow example is not a failure.
settings.register_profile("rilbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rilbench")
