"""Student recipes of another installed package: the command line in a process that has it."""

import yaml
from command import refused, run

FIELDS = "like: nano\nstudent: {name: tall, model: models/tall}\nhardware: {memory_gib: 9}\n"


def install(folder, package, students, entry_point=None):
    """A package as pip installs it: its code beside the metadata with its entry points."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("")
    for name, text in students.items():
        (folder / package / name).write_text(text)
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    line = entry_point or f"{package} = {package}"
    (metadata / "entry_points.txt").write_text(f"[rilbench.students]\n{line}\n")


def resolve(tmp_path, student, *options):
    arguments = ("train", "--recipe", "both", "--student", student, "--dry-run", *options)
    return run(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed"))


def test_a_student_of_another_package_is_found_by_its_name(tmp_path):
    short = "like: tall\nstudent: {name: short, model: models/short}\n"
    install(tmp_path / "installed", "my_students", {"tall.yaml": FIELDS, "short.yaml": short})
    result = resolve(tmp_path, "tall")
    assert result.returncode == 0, result.stderr
    recipe = yaml.safe_load(result.stdout)
    assert recipe["student"] == {"name": "tall", "model": "models/tall"}
    assert recipe["policy"]["length_scale"] == 20, "as nano's"
    assert recipe["hardware"]["memory_gib"] == 9, "its own setting, not the profile's"
    like_it = yaml.safe_load(resolve(tmp_path, "short").stdout)
    assert like_it["student"] == {"name": "short", "model": "models/short"}
    assert like_it["policy"] == recipe["policy"]
    refused(resolve(tmp_path, "wide"), "unknown student 'wide'", "short, tall")


def test_a_student_s_name_must_be_new(tmp_path):
    install(tmp_path / "installed", "my_students", {"nano.yaml": FIELDS})
    refused(resolve(tmp_path, "nano"), "the student 'nano' of", "exists already", "uninstall")


def test_two_packages_with_the_same_student(tmp_path):
    install(tmp_path / "installed", "one", {"tall.yaml": FIELDS})
    install(tmp_path / "installed", "two", {"tall.yaml": FIELDS})
    refused(resolve(tmp_path, "tall"), "the student 'tall' of", "exists already")


def test_a_broken_package_is_one_line(tmp_path):
    for name, students, point, words in (
        ("missing", {"tall.yaml": FIELDS}, "mine = nowhere", "cannot be loaded (ModuleNotFound"),
        ("a_module", {"tall.py": "x = 1"}, "mine = a_module.tall:x", "not a package with YAML"),
        ("empty", {}, None, "has no *.yaml"),
        ("broken", {"tall.yaml": "student: ["}, None, "cannot be read as YAML"),
        ("typing_error", {"tall.yaml": "like: nano\npolicy: {lrr: 1}"}, None, "'policy.lr'"),
        ("circle", {"tall.yaml": "like: tall"}, None, "leads back to itself"),
    ):
        folder = tmp_path / name
        install(folder / "installed", name, students, point)
        refused(resolve(folder, "tall"), words)
