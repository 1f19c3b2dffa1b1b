# Everything runs in .venv, which .ci/setup makes together with the packages it needs.
# Two workers: the tests that need root run one at a time (see tests/conftest.py).
PYTEST = .venv/bin/python -m pytest -n 2
# The shortest of tests/vm that take each firmware's way, there and back, and a root on ZFS.
BOOTS = 'tests/vm/test_init.py::test_forward_and_back_and_away[debian]' \
	'tests/vm/test_zfs_boot.py::test_forward_and_back_and_away[zfs-bios]' \
	'tests/vm/test_trial.py::test_the_last_good_one_comes_back[debian-efi-kernel missing]'
SUITES = tests/contract tests/zfs
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help venv test test-boot test-crash test-packages test-unit test-vm test-zfs demo bench bench-zfs profile fix lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

venv: ## install what is missing; leaves the command at .venv/bin/snaptx
	@.ci/setup venv

test: ## run all tests (as root: they mount loop-backed Btrfs file systems)
	@.ci/setup root
	$(PYTEST)

test-boot: ## boot three machines in QEMU, BIOS, UEFI and ZFS: init, menu, fallback (as root; makes their disks first)
	@.ci/setup vm
	$(PYTEST) -o faulthandler_timeout=0 $(BOOTS)

test-crash: ## cut the power at 20,000 points of all verbs together (as root; takes about an hour)
	@.ci/setup root
	.venv/bin/python -m tests.crash

test-unit: venv ## run the tests that need no root
	$(PYTEST) -m "not root"

test-packages: ## upgrade a real Debian, trees with dnf 4 and 5, zypper, pacman; load nginx (as root; about 20 minutes)
	@.ci/setup managers
	.venv/bin/python -m pytest -o faulthandler_timeout=0 tests/packages $(TESTS)

test-vm: ## boot machines in QEMU through real GRUB (as root; TESTS='-k "..."' chooses)
	@.ci/setup vm
	$(PYTEST) -o faulthandler_timeout=0 tests/vm $(TESTS)

test-zfs: ## run the tests of the ZFS storage in a guest that has ZFS (as root; SUITES=, TESTS='-k "..."' choose)
	@.ci/setup vm
	.venv/bin/python -m pytest -o faulthandler_timeout=0 -p tests.vm.guestrun -m zfs $(SUITES) $(TESTS)

demo: ## show a whole transaction on a Btrfs sandbox (as root)
	@.ci/setup root
	.venv/bin/python -m tests.demo

bench: ## measure snaptx against what people use instead (as root; ROWS='--only apply,commit' chooses)
	@.ci/setup bench
	.venv/bin/python -m tests.bench $(ROWS)

bench-zfs: ## measure the same in a guest that has ZFS (as root; ROWS='--only apply --rounds 3' chooses)
	@.ci/setup vm
	.venv/bin/python -m tests.bench.guest $(ROWS)

profile: ## show where the time of staging goes (as root)
	@.ci/setup bench
	.venv/bin/python -m tests.bench.profile

fix: venv ## format the source and repair what ruff can repair
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lint: venv ## run the rules of the house alone: layers, sizes, ruff, mypy, shellcheck
	$(PYTEST) tests/unit/test_house.py

clean: ## remove .venv and everything that is made
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
