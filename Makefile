# Every command of a developer's day. `make help` lists them.
#
# A fresh machine needs git, make and Python >= 3.11; everything else is set up here, inside the
# checkout (.venv). Another interpreter: make PYTHON=python3.12 setup. More arguments for a command:
# make demo ARGS="--seconds 20", make test ARGS="-k config".

PYTHON ?= python3
ARGS ?=
ENGINE ?= podman
PLATFORM ?= linux/amd64

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
LOCKED := requirements.lock pyproject.toml edge/__init__.py scripts/setup.sh

# What the reference deployments take over from elsewhere in the tree, by file name: guests, the card
# and the int8 model (of wear fp32, it has no other). A cascade has two cards and models, so it says
# which goes where (PLACE=FILE). `$(call pin,pcb)` renews one.
MODELS := pcb pcb_single pcb_kinds steel tile wear
GUESTS_pcb := pair boxes policy
GUESTS_pcb_single := letterbox boxes policy
GUESTS_pcb_kinds := pair boxes topk policy
GUESTS_steel := letterbox topk policy
GUESTS_tile := letterbox heat policy
GUESTS_wear := pair heat policy
SHIPPED_wear := fp32
PLACED_pcb_kinds := detector/model.toml=models/pcb/model.toml \
  detector/model.int8.onnx=models/pcb/model.int8.onnx \
  kinds/model.toml=models/pcb_kinds/model.toml \
  kinds/model.int8.onnx=models/pcb_kinds/model.int8.onnx
shipped = $(or $(SHIPPED_$(1)),int8)
onnx = models/$(1)/$(if $(filter fp32,$(shipped)),model.onnx,model.int8.onnx)
pin = $(BIN)/python -m edge.deployment.pin models/$(1)/deployment \
  $(foreach guest,$(GUESTS_$(1)),guests/$(guest)/$(guest).wasm) \
  $(or $(PLACED_$(1)),models/$(1)/model.toml $(onnx))

# For recipes and tests that load ONNX Runtime without edge, which switches it off itself.
export ORT_DISABLE_TELEMETRY := 1

# The stamp holds the folder that .venv was made in: a checkout that was moved or copied is set up
# again, because a virtual environment does not survive a move.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests demo demo-fleet test faults update-kills sabotage swaps test-postgres console-test check static format openvino opcua sparkplug cameras recipes bench wheel deb image image-test systemd-test arm soak fuzz guests guests-all deployment evaluate schema lock audit sbom clean

help: ## List these commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Make .venv with edge and every development tool.

$(STAMP): $(LOCKED)
	@sh scripts/setup.sh "$(PYTHON)" $(VENV)
	@printf '%s\n' '$(CURDIR)' > $@

setup-tests: setup ## Install what the tests need beyond .venv: Mosquitto, Rust and Go for guests.
	@sh scripts/setup_tests.sh $(VENV)

demo: setup ## Play camera frames through the real daemon and score its verdicts.
	@$(BIN)/edge demo $(ARGS)

demo-fleet: setup ## Two devices and three releases, the last one sabotaged: the walk through docs/updates.md.
	@$(BIN)/python scripts/demo_fleet.py

test: setup-tests ## Run all tests.
	$(BIN)/pytest $(ARGS)

faults: setup-tests ## Kill and cut the power for hours, resumable; needs root for the power cuts. Results: .out/faults.jsonl
	PYTHONPATH=tests nice -n 15 $(BIN)/python tests/faults/long_form.py $(ARGS)

update-kills: setup-tests ## Kill an update at each system call that changes a disk: some minutes. Results: .out/update-kills.jsonl
	PYTHONPATH=tests nice -n 5 $(BIN)/python tests/faults/updates/every_step.py $(ARGS)

sabotage: setup-tests ## Play every kind of sabotaged deployment to a device: about five minutes.
	EDGE_SABOTAGE=all $(BIN)/pytest tests/integration/updates/test_sabotage.py $(ARGS)

swaps: setup-tests ## Exchange deployments under a camera: 1,000 exchanges, then 100 whole rollouts. Results: .out/exchanges.json, swaps.json
	EDGE_EXCHANGES=$(or $(SWAPS),1000) EDGE_SWAPS=100 $(BIN)/pytest tests/integration/updates/test_exchanges.py \
	  tests/integration/updates/test_swaps.py $(ARGS)

test-postgres: setup ## Test the collector's store on PostgreSQL too, installing Debian's where it is missing.
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || apt-get -qq install -y --no-install-recommends postgresql
	$(BIN)/pytest tests/unit/fleet tests/integration/fleet $(ARGS)

console-test: setup-tests ## Use the operator's page in Debian's Chromium, beside a real daemon. Pictures: .out/console/
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
	  apt-get -qq install -y --no-install-recommends chromium chromium-driver fonts-dejavu-core
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group browser
	EDGE_TEST_BROWSER=1 $(BIN)/pytest tests/browser $(ARGS)

# Format, lint, types, import rules, generated files, then the tests.
check: static test ## Everything that CI holds a change to, tests included.

static: setup ## The part of `check` that takes seconds: all but the tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python guests/build.py --check
	$(BIN)/python -m edge.wasm.bindings --check
	$(foreach model,$(MODELS),$(call pin,$(model)) --check &&) true
	$(BIN)/python scripts/config_reference.py --check

format: setup ## Format the sources and repair what the linter can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: setup ## Build wheel and sdist into dist/, byte for byte reproducible.
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
	  $(BIN)/python -m hatchling build --target wheel --target sdist --directory dist

deb: setup ## Build the Debian packages of amd64 and arm64 into dist/, byte for byte reproducible.
	$(BIN)/python scripts/deb.py --arch amd64 $(ARGS)
	$(BIN)/python scripts/deb.py --arch arm64 $(ARGS)

# The tag and the package's version are one; ENGINE=docker builds it as well.
image: setup ## Build the container image from dist/ (make deb); PLATFORM=linux/arm64 on such a machine.
	$(ENGINE) build --file packaging/Containerfile --platform $(PLATFORM) $(if $(findstring podman,$(ENGINE)),--format docker) \
	  --build-arg VERSION=$$($(BIN)/python scripts/deb.py --print-version) \
	  --tag edge:$$($(BIN)/python scripts/deb.py --print-version) $(ARGS) dist

image-test: setup-tests ## Build the image on a Debian of our own and run it, as hardened as can be; needs root.
	@command -v podman >/dev/null || apt-get -qq install -y --no-install-recommends podman runc
	EDGE_TEST_IMAGE=1 CI=true $(BIN)/pytest tests/image $(ARGS)

systemd-test: setup-tests ## Install the package on a fresh Debian under systemd, and pull its plugs; needs root.
	EDGE_TEST_SYSTEMD=full CI=true $(BIN)/pytest tests/systemd $(ARGS)

arm: setup-tests ## The same boards on arm64 by emulation: are the verdicts the same? Needs root.
	$(BIN)/python tests/arm/verdicts.py $(ARGS)

soak: setup-tests ## Eight hours with broker flaps and worker kills (ARGS="--minutes 5"). Results: .out/soak.jsonl
	PYTHONPATH=tests nice -n 5 $(BIN)/python tests/faults/soak.py $(ARGS)

fuzz: setup ## A million hostile cases, then the parsers guided by coverage: about half an hour.
	$(BIN)/python tests/fuzz/fuzz.py --cases 1000000
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group fuzz
	$(BIN)/python tests/fuzz/fuzz_guided.py --runs 200000

openvino: setup ## Try the reference models on OpenVINO's plug-in, on this processor (x86-64).
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group openvino
	$(BIN)/pytest tests/integration/test_openvino.py $(ARGS)

opcua: setup-tests ## Try the OPC UA example between a daemon and a client.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group opcua
	$(BIN)/pytest tests/integration/test_opcua_gate.py $(ARGS)

SPARKPLUG := .out/sparkplug
sparkplug: setup-tests ## Try Sparkplug with the encoders and a node of others (needs Node.js).
	mkdir -p $(SPARKPLUG)
	$(BIN)/uv venv --quiet --allow-existing $(SPARKPLUG)/venv
	$(BIN)/uv pip install --quiet --python $(SPARKPLUG)/venv/bin/python pysparkplug==0.6.1
	npm install --silent --no-save --ignore-scripts --prefix $(SPARKPLUG) sparkplug-payload@1.0.3
	cp tests/sparkplug/record.mjs $(SPARKPLUG)/
	EDGE_SPARKPLUG_PEERS=$(CURDIR)/$(SPARKPLUG) $(BIN)/pytest tests/sparkplug $(ARGS)

# GStreamer's RTSP server and Aravis come for Debian's own Python: they are no part of .venv.
cameras: setup-tests ## Try RTSP and GigE Vision cameras, and measure what a stream costs. Results: .out/cameras.json
	@/usr/bin/python3 -c "import gi, numpy; [gi.require_version(*n) for n in (('GstRtspServer', '1.0'), ('Aravis', '0.8'))]" || \
	  apt-get -qq install -y --no-install-recommends python3-gi python3-numpy gir1.2-gst-rtsp-server-1.0 \
	  gir1.2-aravis-0.8 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
	EDGE_TEST_CAMERAS=1 $(BIN)/pytest tests/integration/test_real_cameras.py tests/systemd/test_camera_units.py
	PYTHONPATH=tests $(BIN)/python tests/rtsp_bench.py $(ARGS)

# In an environment of their own: the wheel is large, and only training needs it. UV_TORCH_BACKEND=cpu
# takes the small one.
RECIPES := .out/recipes
recipes: setup ## Try the parts of the recipes that need torch: networks to files, and back.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(RECIPES)
	$(BIN)/uv pip install --quiet --python $(RECIPES)/bin/python --group dev -r models/recipe/requirements.txt -e .
	$(RECIPES)/bin/python -m pytest tests/unit/models $(ARGS)

bench: setup ## Measure the frame path on this machine.
	$(BIN)/edge bench $(ARGS)

guests: setup ## Build the Wasm guests from source, byte for byte reproducible.
	$(BIN)/python -m edge.wasm.bindings
	$(BIN)/python guests/build.py

guests-all: setup-tests ## Build and try the templates of every guest language, those of npm too.
	npm install --silent --no-save --prefix $(VENV) $$($(BIN)/python -c "from edge.sdk.languages \
	  import assemblyscript as a, script as s; print(a.REQUIREMENT, s.REQUIREMENT_JAVASCRIPT)")
	$(BIN)/pytest tests/conformance/test_templates.py tests/conformance/test_guests_document.py \
	  tests/conformance/test_configuration_documents.py $(ARGS)

deployment: setup ## Renew models/*/deployment from the built guests and the models.
	$(foreach model,$(MODELS),$(call pin,$(model)) &&) true

# Every figure of a report again, from the committed model; latencies are not compared.
evaluate: setup ## Judge the committed models again (MODELS="steel" for one), on the data in EDGE_DATA.
	$(foreach model,$(MODELS),$(BIN)/python -m models.$(model).recipe.evaluate \
	  --model $(call onnx,$(model)) \
	  --check models/$(model)/reports/$(call shipped,$(model)).json &&) true

schema: setup ## Generate device_configs/schema.json and docs/configuration.md from the models.
	$(BIN)/python scripts/config_reference.py

lock: setup ## Resolve the dependencies anew into requirements.lock.
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --group guests -o scripts/guest_toolchains.lock

# Its tool is fetched for the call alone: no part of the product needs it.
audit: setup ## Ask the advisory databases about every pin; ARGS=--offline-ok where none may be reached.
	@$(BIN)/python scripts/audit.py $(ARGS)

sbom: setup ## Write what runs on a device, by the lock, as CycloneDX: .out/edge.cdx.json
	@$(BIN)/python scripts/sbom.py .out/edge.cdx.json $(ARGS)

clean: ## Remove .venv and every cache.
	rm -rf $(VENV) build dist .out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
