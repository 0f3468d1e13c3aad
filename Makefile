# The first call makes .venv and installs into it; later calls find it there.
#   make demo    fuse the built-in sample stack and show the result
#   make test    the whole test suite, window tests on a virtual screen
#   make lint    ruff, mypy, and the contract of who may import whom
#   make test-lowest   the tests with the oldest versions that pyproject.toml allows
#   make docs    the documentation, in docs/_build/html
PYTHON ?= python3
VENV ?= .venv
# The CPU build keeps the environment small. `make demo TORCH_INDEX=` takes the build on
# PyPI instead, which on Linux brings CUDA.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Neighbours stay with one process, as long as no other has run out of tests: what they
# share is mostly made once.
PYTEST_ARGS ?= -n logical --maxprocesses 4 --dist worksteal

# Without bytecode each of the many interpreters that tests start compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile
RESOLVE ?= $(INSTALL)

# Qt's xcb platform and vispy's OpenGL, drawn by Mesa on a virtual screen.
WINDOW_PACKAGES := xvfb xauth libgl1 libgl1-mesa-dri libegl1 libopengl0 libdbus-1-3 \
	libfontconfig1 libglib2.0-0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 \
	libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 \
	libxcb-xfixes0 libxcb-xinerama0 libxcb-xkb1

# $(call apt,PACKAGES): install them where we may, else say what to type.
apt = if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(1); \
	else \
		echo "Please install these first: sudo apt-get install $(1)" >&2; exit 1; \
	fi

.PHONY: demo test test-lowest lint docs clean windows

demo: $(VENV)/.base
	$(BIN)/python -m napari_focus_fusion demo --out demo --overwrite

test: windows $(VENV)/.test
	@if command -v xvfb-run >/dev/null; \
	then set -x; xvfb-run -a -s "-screen 0 1600x1200x24" $(BIN)/python -m pytest $(PYTEST_ARGS); \
	else set -x; $(BIN)/python -m pytest $(PYTEST_ARGS); fi

# PyTorch stays the one of above. What the oldest versions drag in may call each other
# in ways that have become old since, which is not ours to mend: warnings are no errors.
test-lowest: | $(BIN)/python
	$(BIN)/python -m pip --quiet install uv
	$(MAKE) test VENV=$(VENV)-lowest PYTEST_ARGS='$(PYTEST_ARGS) -W default' \
		RESOLVE='$(abspath $(BIN))/uv pip install --python $(VENV)-lowest --resolution lowest-direct --quiet'

# mypy reads the types of what the tests install (napari, magicgui) as well.
lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist demo docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The dry run names what is missing; it fails where the package lists are empty.
windows:
	@if command -v apt-get >/dev/null; then \
		missing=$$(apt-get -s install --no-install-recommends --no-upgrade \
				$(WINDOW_PACKAGES) 2>/dev/null) \
			&& missing=$$(echo "$$missing" | sed -n 's/^Inst \([^ ]*\).*/\1/p' | xargs) \
			|| missing="$(WINDOW_PACKAGES)"; \
		if [ -n "$$missing" ]; then $(call apt,$$missing); fi; \
	fi

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call apt,python3-venv); }
	$(PYTHON) -m venv $(VENV)

# torch comes first: the package's own requirement would take the largest build.
$(VENV)/.base: pyproject.toml | $(BIN)/python
	$(INSTALL) --upgrade 'pip>=25.1'
	$(INSTALL) --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)'
	$(RESOLVE) -e .
	@touch $@

# .test, .lint and .docs: the dependency groups of pyproject.toml
$(VENV)/.%: pyproject.toml $(VENV)/.base
	$(RESOLVE) --group $*
	@touch $@
