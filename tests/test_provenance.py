from pipeline.tracking.describe import environment, requirements


def test_the_environment_has_exact_versions():
    assert all(line.count("==") == 1 for line in requirements())
    assert environment().packages["numpy"].startswith("2.")
