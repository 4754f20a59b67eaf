from tests.unit.settings.conftest import bare_environ

__all__ = ["bare_environ"]
