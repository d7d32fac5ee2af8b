"""What pyproject.toml cannot say to every setuptools since 61, so to every Python since 3.7."""
from setuptools.command.egg_info import egg_info


class EggInfo(egg_info):
    """Adds the licence, which old and new setuptools want written in ways that exclude each other, and to the sdist
    all that the tests and the documents need."""

    def finalize_options(self):
        super().finalize_options()
        metadata = self.distribution.metadata
        metadata.license_files = ['docs/LICENSE']
        if hasattr(metadata, 'license_expression'):     # setuptools 77
            metadata.license_expression = 'MIT'
        else:
            metadata.license = 'MIT'

    def find_sources(self):
        super().find_sources()
        for directory in 'docs', 'tests', '.ci':
            self.filelist.graft(directory)
        self.filelist.global_exclude('*.py[cod]')
        self.filelist.global_exclude('__pycache__/*')
