"""PostgreSQL's programs where its account can reach them."""

from pathlib import Path

from gateway_admin.supervisor.accounts import ServiceAccount
from gateway_admin.supervisor.binaries import copy_of, postgres_bin_dir

NOBODY = ServiceAccount(uid=65_534, gid=65_534)


def test_the_present_user_takes_the_wheel_s() -> None:
    assert (postgres_bin_dir(ServiceAccount()) / "postgres").is_file()


def test_out_of_reach_they_are_copied_with_what_lies_beside_them(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    program = closed / "package" / "pginstall" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("program")
    program.chmod(0o755)
    (closed / "package.libs").mkdir()
    (closed / "package.libs" / "libpq.so").write_text("library")
    closed.chmod(0o700)
    assert not NOBODY.reaches(program)

    shared = tmp_path / "shared"
    copy = copy_of(closed / "package", shared)
    assert (copy / "package" / "pginstall" / "bin" / "postgres").read_text() == "program"
    assert (copy / "package.libs" / "libpq.so").read_text() == "library"
    assert all(path.stat().st_mode & 0o005 == 0o005 for path in (shared, copy, copy / "package"))
    assert copy_of(closed / "package", shared) == copy, "once"
