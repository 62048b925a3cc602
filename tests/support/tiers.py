"""Which test files start verl, and which start toolkits, servers or several trainings."""

VERL = (
    "examples/test_ril_minimal.py",
    "lab/test_gate_seed.py",
    "train/pipeline/test_sft.py",
    "train/test_failed_questions.py",
    "train/test_internvl.py",
    "train/test_nodes.py",
    "train/test_own_model.py",
    "train/test_ranks.py",
    "train/test_rehearsal.py",
    "train/test_reshard.py",
    "train/test_run.py",
    "train/test_students.py",
    "train/test_variants.py",
    "train/test_world_size.py",
    "train/verl/test_gpu_configuration.py",
    "train/verl/test_model_families.py",
    "train/verl/test_packed.py",
    "train/verl/test_rank_of_text.py",
    "train/verl/test_ray_devices.py",
    "whole_run/test_execute.py",
)
"""Files that start verl; `make test-all` runs them one after another."""

IN_MAKE_TEST = ("train/test_run.py",)
"""The one real short run of the loop, with its kill and resume."""

INTEGRATION = (
    *(file for file in VERL if file not in IN_MAKE_TEST),
    "check/test_commands.py",
    "config/test_plugin_students.py",
    "data/contamination/test_image_hash.py",
    "data/test_response_collector.py",
    "data/test_select.py",
    "doctor/test_doctor.py",
    "evaluate/kits",
    "evaluate/test_bad_endpoints.py",
    "evaluate/test_batch_engine.py",
    "evaluate/test_kills.py",
    "evaluate/test_model_server.py",
    "evaluate/test_own_benchmark.py",
    "evaluate/test_run.py",
    "evaluate/test_stale.py",
    "evaluate/test_unclean_replies.py",
    "gpu",
    "importers",
    "lab/test_worker.py",
    "lab/test_report.py",
    "ledger/test_writers.py",
    "nano/test_build.py",
    "nano/test_kit.py",
    "report/test_browser.py",
    "serving/test_server.py",
    "test_dockerfile.py",
    "test_interruption.py",
    "test_outside_text.py",  # runs every reading command several times
    "test_packaging.py",
    "test_recomputed.py",
    "test_wheel.py",
    "train/pipeline/test_started_judge.py",
    "train/pipeline/test_started_teachers.py",
    "train/verl/test_saved_weights.py",
    "view/test_in_browser.py",
)
"""Files and folders that start toolkits, servers, Chromium or more trainings."""
