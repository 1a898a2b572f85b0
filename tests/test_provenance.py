from pipeline.tracking.describe import environment, serving_requirements


def test_the_environment_has_exact_versions():
    assert all(line.count("==") == 1 for line in serving_requirements())
    assert environment().packages["numpy"].startswith("2.")
