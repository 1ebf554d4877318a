# SPDX-License-Identifier: MIT
#
#   make build    build/libnss_mymachines.so.2, and .venv with the commands
#   make demo     shows what it does, on containers made for the purpose
#   make test     all tests
#   make bench    what it all costs, beside what people use today; writes docs/performance.*
#   make soak     hostile input, faults and load, for a long time
#   make check    ruff, mypy, the compiler's warnings
#   make install  what `make build` made, into PREFIX, /usr/local unless you say otherwise
#   make uninstall  takes exactly that away again
#   make deb      Debian packages, in build/deb, for the Debian that it runs on
#   make dist     a source distribution and a wheel for pip, in build/dist
#   make clean    removes what these made, .venv too
#
# On a fresh machine these need python3, a C compiler with libc's headers, and make. All else they fetch: Python's
# packages by pip, as its configuration says; where Debian's packages are missing, root gets them by apt-get and anybody
# else is told what to install. `make test` and `make bench` install real clients and servers: Debian's libnss-systemd,
# libnss-mymachines and libnss-sss then add themselves to /etc/nsswitch.conf. On a host that runs systemd, services and
# sockets that come with these (bind9, knot, libvirtd, nscd, prometheus, sssd) run until all is installed, and are then
# stopped and disabled, for tests start their own; timers and machines.target stay. Another service manager keeps what it
# starts.
#
# PYTHON chooses the interpreter of a new .venv; CC, CFLAGS and LDFLAGS are honoured. LIBDIR is the shim's folder, and
# DESTDIR is put before every path that is written to: nothing outside it is then touched or told.

PYTHON ?= python3
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=

VENV := .venv
SHIM := build/libnss_mymachines.so.2
C_FILES := $(wildcard nss_module/*)
DEMO_PACKAGES := iproute2 procps iputils-ping
DEB_PACKAGES := build-essential debhelper help2man lintian python3-cffi python3-dev python3-packaging python3-setuptools
# Debian 12 has the one not at all, the other too old
DEB_PACKAGES += $(if $(filter 13,$(shell cut -d. -f1 /etc/debian_version 2>/dev/null)),python3-dnspython \
    python3-prometheus-client python3-varlink)
# What it is compared with: real ones, which the bench starts on test hosts of its own.
PEER_PACKAGES := libnss-mymachines libnss-sss sssd-common
BENCH_PACKAGES := $(DEMO_PACKAGES) bind9-dnsutils dnsmasq-base dnsperf dbus systemd-container libnss-systemd \
    $(PEER_PACKAGES)
TEST_PACKAGES := $(DEMO_PACKAGES) util-linux uidmap strace binutils dbus systemd-container systemd-userdbd libnss-systemd \
    debootstrap dnsmasq-base bind9 bind9-dnsutils bind9-host knot knot-dnsutils ldnsutils musl-tools acl attr \
    btrfs-progs e2fsprogs xfsprogs curl prometheus bash-completion zsh fish nscd apparmor man-db $(PEER_PACKAGES)
# the shim's fuzzers
TEST_PACKAGES += clang libclang-rt-dev
# libvirt's helper of dnsmasq: in Debian 13 a package of its own
TEST_PACKAGES += $(firstword $(shell apt-cache pkgnames libvirt-daemon-driver-network 2>/dev/null) libvirt-daemon)
TEST_PACKAGES += $(DEB_PACKAGES)
ifeq ($(shell uname -m),x86_64)
TEST_PACKAGES += gcc-multilib
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: build demo test bench soak soak-tools check install uninstall deb dist clean demo-packages bench-packages \
    deb-packages test-packages
.NOTPARALLEL:

build: $(SHIM) $(VENV)/.installed

demo: build demo-packages
	@$(VENV)/bin/python -m tests.demo

test: check test-packages
	$(VENV)/bin/python -m pytest

bench: build $(VENV)/.bench-tools bench-packages
	@$(VENV)/bin/python -m tests.bench --record

# One after the other, each ends by itself; docs/reliability.md has what they found.
soak: build $(VENV)/.test-tools test-packages soak-tools
	$(VENV)/bin/python -m tests.fuzz.shim --runs 10000000
	$(VENV)/bin/python -m tests.fuzz.netlink --runs 10000000
	$(VENV)/bin/python -m tests.soak.consistency --seconds 60
	$(VENV)/bin/python -m tests.soak.kill --times 750
	$(VENV)/bin/python -m tests.soak.kill --times 250 --without-pidfd-ids
	$(VENV)/bin/python -m tests.soak.full
	$(VENV)/bin/python -m tests.soak.protocols
	$(VENV)/bin/python -m tests.soak.callers
	$(VENV)/bin/python -m tests.dns.fuzz

# Not every Python and machine has a wheel of atheris, and to build it takes LLVM: then its jobs say that they do without.
soak-tools: $(VENV)/.test-tools
	-$(VENV)/bin/pip install -q --only-binary=atheris 'atheris>=3'

check: build $(VENV)/.test-tools
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy --strict resolver machine_images build_nss.py setup.py system tests
	CFLAGS="$(CFLAGS) -Werror" $(VENV)/bin/python build_nss.py --shim
	@if echo 'int main(void) { return 0; }' | $(CC) -m32 -x c -o /dev/null - 2>/dev/null; then \
	    CFLAGS="$(CFLAGS) -Werror" $(VENV)/bin/python build_nss.py --m32 build/32; \
	else echo 'not checked: a 32-bit shim (the compiler has no -m32)'; fi

# Nothing is fetched but what build/wheels lacks, and nothing is run that is not ours: `make build build/wheels/.made` as
# yourself leaves only copying to root.
install: $(SHIM) build/wheels/.made
	$(VENV)/bin/python -I system/install.py install --prefix='$(PREFIX)' --libdir='$(LIBDIR)' --destdir='$(DESTDIR)'

uninstall:
	$(PYTHON) -I system/install.py uninstall --prefix='$(PREFIX)' --libdir='$(LIBDIR)' --destdir='$(DESTDIR)'

# Debian's tools work on a copy with debian/bundled in it, what Debian may lack: only this line fetches Python's packages.
deb: deb-packages build/deb/bundled/.made
	$(VENV)/bin/python -I system/deb.py --bundled=build/deb/bundled

# The sdist is whole: what it is unpacked to builds, tests and packages itself.
dist: $(VENV)/.installed
	rm -rf build/dist build/lib
	$(VENV)/bin/pip install -q build
	$(VENV)/bin/python -m build --no-isolation --outdir=build/dist . >build/dist.log || { cat build/dist.log >&2; exit 1; }
	@ls build/dist/*

clean:
	rm -rf build $(VENV) *.egg-info resolver/_table*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find resolver tests -name __pycache__ -type d -exec rm -rf {} +

# --- what is built ---

$(SHIM): build_nss.py $(C_FILES)
	@$(compiler-is-whole) || test "$$(id -u)" != 0 || { $(call fetch,gcc libc6-dev) ; }
	$(PYTHON) build_nss.py --shim
	@touch $@

# No build isolation: otherwise each change of a C file fetches setuptools and cffi anew. compat: by a path, as an installed
# package is found, and not by a finder that each start imports (15 ms).
EDITABLE := $(VENV)/bin/pip install -q --no-build-isolation --config-settings editable_mode=compat --editable

$(VENV)/.installed: $(VENV)/.made pyproject.toml setup.py build_nss.py $(C_FILES)
	$(VENV)/bin/pip install -q 'setuptools>=77' 'cffi>=1.16'
	$(EDITABLE) .
	@touch $@

# The project and all that it needs to run, as wheels.
build/wheels/.made: $(VENV)/.installed $(shell find resolver -name '*.py' -o -name '*.varlink')
	rm -rf $(@D) build/lib
	$(VENV)/bin/pip wheel -q --no-build-isolation --wheel-dir=$(@D) .
	@touch $@

# All but cffi: Debian has it, and it is no pure Python.
build/deb/bundled/.made: $(VENV)/.made pyproject.toml
	rm -rf $(@D) && mkdir -p $(@D)
	$(VENV)/bin/python -c 'import tomllib; print("\n".join(each for each in tomllib.load(open("pyproject.toml", "rb"))	    ["project"]["dependencies"] if not each.startswith("cffi")))' >$(@D).txt
	$(VENV)/bin/pip install -q --no-compile --only-binary=:all: --target=$(@D) --requirement=$(@D).txt
	@touch $@

$(VENV)/.test-tools: $(VENV)/.installed
	$(EDITABLE) '.[test,bench]'
	@touch $@

$(VENV)/.bench-tools: $(VENV)/.installed
	$(EDITABLE) '.[bench]'
	@touch $@

$(VENV)/.made:
	@$(python-is-whole) || test "$$(id -u)" != 0 || { $(call fetch,python3-venv python3-dev) ; }
	@$(python-is-whole) || { echo "$(PYTHON) lacks its venv module or Python.h: install python3-venv and" \
	    "python3-dev (Fedora: python3-devel), or choose another with PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Debian's gcc recommends libc's headers, and comes without them where recommendations are off.
compiler-is-whole = echo '\#include <stdio.h>' | $(CC) -E -x c - >/dev/null 2>&1

python-is-whole = $(PYTHON) -c 'import ensurepip, pathlib, sys, sysconfig; \
    sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' 2>/dev/null

# --- Debian's packages ---

demo-packages:
	@$(call fetch,$(DEMO_PACKAGES),the demo needs the first and leaves out what needs the others)

bench-packages:
	@$(call fetch,$(BENCH_PACKAGES),nothing is compared with what is missing)

deb-packages:
	@$(call fetch,$(DEB_PACKAGES),no packages are made without them)

test-packages:
	@$(call fetch,$(TEST_PACKAGES),tests that need them are skipped)

# $(call fetch,PACKAGES,CONSEQUENCE): installs those that are missing, as root on Debian. Somebody else on Debian is told;
# elsewhere packages have other names, and whoever needs one says so. What was not enabled before is so no more.
define fetch
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || exit 0; \
missing=; for package in $(1); do \
    test "$$(dpkg-query -Wf '$${db:Status-Status}' "$$package" 2>/dev/null)" = installed || missing="$$missing $$package"; \
done; \
if [ -z "$$missing" ]; then :; \
elif [ "$$(id -u)" != 0 ]; then echo "not installed:$$missing ($(2)). As root: apt-get install$$missing" >&2; \
else \
    echo "installing$$missing"; \
    export DEBIAN_FRONTEND=noninteractive; \
    set -- apt-get install -qq --no-install-recommends -o Dpkg::Use-Pty=0 $$missing; \
    before=$$($(enabled-units)); status=0; \
    "$$@" >/dev/null 2>&1 || { apt-get update -qq && "$$@" >/dev/null; } || status=$$?; \
    for unit in $$($(enabled-units)); do \
        echo "$$before" | grep -qxF "$$unit" || systemctl --quiet disable --now "$$unit"; \
    done; \
    exit $$status; \
fi
endef

enabled-units = test ! -d /run/systemd/system || \
    systemctl list-unit-files --no-legend --type=service,socket --state=enabled | cut -d' ' -f1
