# roadwork-miner: every target is one line of help; `make help` lists them.
# The Python of the environment; none: the first of this machine that is new enough, or one that uv has.
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
PREFIX ?= $(HOME)/.local
# On this platform's default index a plain `torch` may be the CUDA build of several gigabytes: give the CPU wheels' index
# in TORCH_ARGS where your pip does not prefer them already, e.g. TORCH_ARGS="--index-url …".
TORCH ?= torch==2.13.0
TORCH_ARGS ?=
PIP := $(BIN)/pip --disable-pip-version-check -q
# Settings file of every target whose help names it (ENV= says the same); none: the miner.env of this folder, else
# standalone with the starter detector.
ENV_FILE ?=
MINER := $(BIN)/roadwork-miner
BENCH := models/bench
STARTER := $(or $(OUT),models/starter)
RECIPE := detectors/training/starter/recipe.yaml
BENCH_MODELS := $(BENCH)/vit-base.env $(BENCH)/yolo11n.env
# ENV names a service where one is meant, and elsewhere a settings file: a path, or the network of a shipped one. A
# shell's own ENV is none of our business.
SERVICES := install-service upgrade-service uninstall-service
READERS := run query simulate top doctor models export bench bench-keys bench-hop bench-shadow bench-late
SETTINGS := $(ENV_FILE)
ifeq ($(origin ENV),command line)
GOALS := $(or $(MAKECMDGOALS),help)
ifeq ($(filter $(READERS) $(SERVICES),$(GOALS)),)
$(error ENV=$(ENV): make $(firstword $(GOALS)) takes no settings file)
endif
ifneq ($(filter $(READERS),$(GOALS)),)
ifneq ($(words $(ENV)),1)
$(error ENV=$(ENV): a path without spaces is needed; roadwork-miner --env-file takes any)
endif
MEANT := $(firstword $(wildcard $(ENV) env/$(ENV).env))
ifeq ($(MEANT),)
$(error ENV=$(ENV): there is no such file; a settings file or one of $(patsubst env/%.env,%,$(wildcard env/*.env)) is needed)
endif
ifneq ($(filter-out $(MEANT),$(ENV_FILE)),)
$(error ENV=$(ENV) and ENV_FILE=$(ENV_FILE) are two settings files; give one of them)
endif
SETTINGS := $(MEANT)
endif
endif
WITH_ENV := $(if $(SETTINGS),--env-file $(SETTINGS))

# A name that is nearly right would be passed over, and the miner run on throwaway keys.
MISSPELT := $(strip $(foreach name,ENVFILE ENV_FILES env_file envfile,$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
ifneq ($(MISSPELT),)
$(error $(MISSPELT)=$($(MISSPELT)): the settings file is ENV_FILE=$($(MISSPELT)))
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-eval setup-all link run query simulate top tables dashboards doctor models export starter starter-folds vit-base bench bench-axon bench-hop bench-keys bench-shadow bench-late check lint test fuzz soak install-service upgrade-service uninstall-service test-remote test-service test-container lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 19

setup: $(VENV)/.serve ## Install what serving needs, pinned and hash-checked (about 360 MB)
setup-eval: $(VENV)/.eval ## Install what evaluate, calibrate, fuse and --plot need as well, hash-checked (about 280 MB, no torch)
setup-all: $(VENV)/.all ## Install the exporters, torch and the development tools as well (about 2.7 GB)

# An absolute link, so that it holds from everywhere; whatever else has the name is somebody's.
link: COMMAND := $(PREFIX)/bin/roadwork-miner
link: $(VENV)/.serve ## Link the command into PREFIX/bin (~/.local/bin), to be called as roadwork-miner
	@if [ "$$(readlink '$(COMMAND)')" != '$(abspath $(MINER))' ] && { [ -e '$(COMMAND)' ] || [ -L '$(COMMAND)' ]; }; then \
		echo "error: $(COMMAND) is there and is not this folder's ($$(readlink '$(COMMAND)' || echo a file)); remove it, or give another place: make link PREFIX=folder" >&2; exit 2; fi
	@mkdir -p '$(PREFIX)/bin' && ln -sfn '$(abspath $(MINER))' '$(COMMAND)' && echo '$(COMMAND) is $(abspath $(MINER))'
	@case ":$$PATH:" in *:'$(PREFIX)/bin':*) ;; *) echo 'warning: $(PREFIX)/bin is not on your PATH: export PATH="$(PREFIX)/bin:$$PATH" in your shell profile' >&2 ;; esac

run: $(VENV)/.serve ## Run the miner (ENV_FILE=file, else ./miner.env; without one: no chain, the starter detector)
	@$(MINER) run $(WITH_ENV) $(ARGS)

query: $(VENV)/.serve ## Ask the running miner as a validator would (IMAGE=photo.jpg; else about the street that ships)
	@$(MINER) query $(or $(IMAGE),deploy/images/street.jpg) $(WITH_ENV) $(ARGS)

simulate: $(VENV)/.serve ## Play a subnet's validators against a miner started for it (DATA=folder of labelled photos, ENV_FILE=miner.env)
	@$(MINER) simulate $(if $(DATA),--data $(DATA)) $(WITH_ENV) $(ARGS)

top: $(VENV)/.serve ## Show the running miner in the terminal (ENV_FILE=miner.env)
	@$(MINER) top $(WITH_ENV) $(ARGS)

tables: $(VENV)/.dev ## Write the tables that documents have from the code: settings, map of rooms, counts
	@$(BIN)/python -m tests.tables

dashboards: .promtool $(VENV)/.dev ## Check dashboard, rules and alerts against the metrics (needs Debian's package prometheus)
	@$(BIN)/pytest -q tests/unit/deploy

doctor: $(VENV)/.serve ## Say what keeps requests or rewards away (ENV_FILE=miner.env)
	@$(MINER) doctor $(WITH_ENV) $(ARGS)

models: $(VENV)/.serve ## Fetch, verify and export the configured model ahead of the first start (ENV_FILE=miner.env)
	@$(MINER) models download $(WITH_ENV) $(ARGS)

export: $(VENV)/.all ## Export the configured model again, into OUT or its own folder (ENV_FILE=miner.env OUT=folder)
	@$(MINER) export $(WITH_ENV) $(if $(OUT),--out $(OUT)) $(ARGS)

# What it is worth on photos of cones is left out of its manifest: the page would promise it.
starter: $(VENV)/.all ## Train the shipped starter again from photos, judge it on a fifth kept back, export it (DATA=folder OUT=models/starter)
	@test -n "$(DATA)" || { echo 'error: DATA is empty; give a folder with roadwork and no_roadwork: make starter DATA=photos' >&2; exit 2; }
	@$(BIN)/python -m detectors.training.folds split $(DATA) $(STARTER)/folds
	@$(MINER) train $(STARTER)/folds/1 --config $(RECIPE) --out $(STARTER)/run $(ARGS)
	@rm -rf $(STARTER)/starter && cp -r $(STARTER)/run/model $(STARTER)/starter
	@echo 'hf_repo: starter' > $(STARTER)/starter.yaml
	@$(MINER) export --half --set IMAGE_DETECTOR_CONFIG=$(STARTER)/starter.yaml --pictures $(STARTER)/folds/1/test --out $(STARTER)/exported
	@$(BIN)/python -c "from pathlib import Path; from detectors.models.manifest import Manifest; folder = Path('$(STARTER)/exported'); Manifest.read(folder).model_copy(update={'judged': None}).write(folder)"
	@$(BIN)/python -m detectors.builders.half $(STARTER)/starter/model.safetensors $(STARTER)/exported/model.safetensors
	@$(MINER) evaluate $(STARTER)/folds/1/test --model $(STARTER)/exported --augment
	@echo '$(STARTER)/exported is what the package ships as detectors/starter'

starter-folds: $(VENV)/.all ## Judge the starter's recipe on every photo, in five trainings that each keep a fifth back (DATA=folder)
	@test -n "$(DATA)" || { echo 'error: DATA is empty; give a folder with roadwork and no_roadwork: make starter-folds DATA=photos' >&2; exit 2; }
	@$(BIN)/python -m detectors.training.folds split $(DATA) $(STARTER)/folds
	@for fold in 1 2 3 4 5; do \
		$(MINER) train $(STARTER)/folds/$$fold --config $(RECIPE) --out $(STARTER)/runs/$$fold $(ARGS) && \
		$(MINER) evaluate $(STARTER)/folds/$$fold/test --model $(STARTER)/runs/$$fold/served --augment --json > $(STARTER)/runs/$$fold.json || exit; \
	done
	@$(BIN)/python -m detectors.training.folds pool $(STARTER)/runs/*.json

vit-base: $(VENV)/.all ## Make a full-size ViT-base with random weights in OUT, for trying the machine
	@$(BIN)/python -m tests.models vit-base $(or $(OUT),models/vit-base)

bench: $(VENV)/.all $(if $(SETTINGS),,$(BENCH_MODELS)) ## Measure a model beside its own library (ENV_FILE=miner.env; none: ViT-base and YOLO11n, random weights)
	@code=0; for file in $(or $(SETTINGS),$(BENCH_MODELS)); do $(MINER) bench $(if $(findstring --daemon,$(ARGS)),,--reference-if-there) --env-file $$file $(ARGS) || code=$$?; done; exit $$code

$(BENCH)/vit-base.env: | $(VENV)/.all
	@$(BIN)/python -m tests.models vit-base $(BENCH)/vit-base >&2
	@echo 'hf_repo: vit-base' > $(BENCH)/vit-base.yaml
	@printf '%s\n' IMAGE_DETECTOR=ViT IMAGE_DETECTOR_CONFIG=$(BENCH)/vit-base.yaml MODELS_DIR=$(BENCH)/prepared > $@.partial
	@for precision in fp32 int8 bf16; do $(MINER) export --env-file $@.partial --precision $$precision || test $$precision = bf16 || exit; done
	@mv $@.partial $@

$(BENCH)/yolo11n.env: | $(VENV)/.all
	@mkdir -p $(BENCH)
	@$(BIN)/python -c 'from pathlib import Path; from tests.models import make_yolo; make_yolo(Path("$(BENCH)/yolo11n.pt"))' >&2
	@echo 'weights_path: yolo11n.pt' > $(BENCH)/yolo11n.yaml
	@printf '%s\n' IMAGE_DETECTOR=YOLOClassifier IMAGE_DETECTOR_CONFIG=$(BENCH)/yolo11n.yaml MODELS_DIR=$(BENCH)/prepared > $@.partial
	@mv $@.partial $@

bench-axon: $(VENV)/.serve ## The axon's own ceiling: requests a second with a detector that answers at once (ARGS=--json)
	@$(BIN)/python -m tests.bench.axon $(ARGS)

bench-keys: $(VENV)/.serve ## What more hotkeys cost: memory of one process for all, and of one for each (ENV_FILE=miner.env)
	@$(BIN)/python -m tests.bench.keys $(WITH_ENV) $(ARGS)

bench-hop: $(VENV)/.all ## What the way to another machine costs (REMOTE_ENDPOINTS=… or ENV_FILE=miner.env; none: a server of its own)
	@$(BIN)/python -m tests.bench.hop $(WITH_ENV) $(ARGS)

bench-shadow: $(VENV)/.serve ## What a shadow model costs live requests: with and without, in turn (ENV_FILE=miner.env)
	@$(BIN)/python -m tests.bench.shadow $(WITH_ENV) $(ARGS)

bench-late: $(VENV)/.all ## Whether an answer of a daemon is late in 10,000 requests of a mixed load (ENV_FILE=miner.env; none: graphs that pass the time)
	@$(BIN)/python -m tests.bench.late $(WITH_ENV) $(ARGS)

# Tests of a file share daemons, so they stay together. There are more workers than cores, since many tests wait.
WORKERS ?= 3
PARALLEL := --dist loadfile --no-loadscope-reorder

# Modules compiled once, not by each of a thousand processes.
check test: export PYTHONDONTWRITEBYTECODE :=

# The hook has half a minute, of which imports of torch and scikit-learn would take a third.
QUICK := -m 'not process and not slow and not export and not fuzz' \
	--ignore=tests/unit/detectors/training --ignore=tests/unit/detectors/evaluation

check: lint ## Lint, types and the quick tests: no processes, no torch, no scikit-learn, nothing slow
	@$(MAKE) --no-print-directory -j 2 --output-sync=target .check-miner .check-others

# Side by side; xdist's workers would each collect all of it, a fifth of the time.
.check-miner:
	@$(BIN)/pytest -q $(QUICK) tests/unit/miner

.check-others:
	@$(BIN)/pytest -q $(QUICK) --ignore=tests/unit/miner tests/unit

lint: $(VENV)/.all ## Ruff and mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

test: lint ## Lint, types and all tests: real clients, real signals, real models
	@$(BIN)/pytest -n $(WORKERS) $(PARALLEL) --durations=25 $(ARGS)

fuzz: $(VENV)/.all ## Throw far more damaged requests, pictures and model files at the parsers than the tests do (CASES=15000 for each of 21 tests)
	@HYPOTHESIS_PROFILE=fuzz FUZZ_CASES=$(or $(CASES),15000) $(BIN)/pytest -q -m fuzz --timeout=0 tests/unit $(ARGS)

soak: $(VENV)/.all ## Send 20,000 mixed requests to a daemon, and see that it does not grow (ARGS="--count 10000")
	@$(BIN)/python -m tests.soak $(ARGS)

install-service: ## Install and start the systemd service (ENV=testnet HOTKEY=file; DRY_RUN=1 prints the steps)
	@deploy/systemd/install.sh

upgrade-service: ## Put this version beside the one that runs, and switch to it (ENV=testnet; ROLLBACK=1 goes back to the one before)
	@UPGRADE=1 deploy/systemd/install.sh

uninstall-service: ## Stop the systemd service; settings, keys and state stay (ENV=testnet; PURGE=1 removes them too)
	@deploy/systemd/uninstall.sh

test-remote: $(VENV)/.all ## Try the remote backend with a real Ray Serve (installs 500 MB into .cache; five minutes)
	@ROADWORK_TEST_REMOTE=1 $(BIN)/pytest tests/remote $(ARGS)

test-service: $(VENV)/.all ## Try the service on a booted systemd in a container (root, debootstrap, systemd-container; SUITE=jammy MIRROR=its packages' address)
	@ROADWORK_TEST_SERVICE=1 ROADWORK_TEST_SUITE=$(SUITE) ROADWORK_TEST_MIRROR=$(MIRROR) $(BIN)/pytest tests/service $(ARGS)

test-container: $(VENV)/.all ## Build the image and try it, compose.yaml and Alertmanager (root, podman and more: tests/README.md)
	@ROADWORK_TEST_CONTAINER=1 $(BIN)/pytest tests/container $(ARGS)

LOCKED := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q

lock: $(VENV)/.all ## Pin again what serving needs, what evaluating needs besides, and what builds the package (env/serve.txt, eval.txt, build.txt)
	@$(BIN)/uv pip compile pyproject.toml -c env/constraints.txt $(LOCKED) -o env/serve.txt
	@$(BIN)/uv pip compile pyproject.toml --extra eval -c env/constraints.txt $(LOCKED) $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' env/serve.txt) -o env/eval.txt
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | $(BIN)/uv pip compile - $(LOCKED) -o env/build.txt

clean: ## Remove the environment and what tests have cached
	@rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache *.egg-info

$(VENV)/.python:
	@python=$$(PYTHON='$(PYTHON)' deploy/python.sh) && "$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.serve: $(VENV)/.python env/serve.txt pyproject.toml
	@echo 'installing what serving needs, once (about 360 MB) …' >&2
	@$(PIP) install --require-hashes -r env/serve.txt
	@$(PIP) install --no-deps -e .
	@touch $@
	@echo '$(MINER) is there; `make link` puts it on your path' >&2

# What it needs of serve.txt is there already, so the lock holds the rest alone.
$(VENV)/.eval: $(VENV)/.serve env/eval.txt
	@echo 'installing what evaluating and plotting need, once (about 280 MB) …' >&2
	@$(PIP) install --no-deps --require-hashes -r env/eval.txt
	@touch $@

# Without it half of the checks would be skipped; never made, so looked for each time.
.promtool:
	@command -v promtool >/dev/null || { echo 'error: promtool is missing; on Debian and Ubuntu: apt-get install --no-install-recommends prometheus' >&2; exit 2; }

$(VENV)/.dev: $(VENV)/.serve env/constraints.txt
	@echo 'installing the development tools, once (about 150 MB) …' >&2
	@$(PIP) install -c env/constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.all: $(VENV)/.serve env/constraints.txt
	@echo 'installing torch, the exporters and the development tools, once (about 2 GB) …' >&2
	@$(PIP) install $(TORCH) $(TORCH_ARGS)
	@$(PIP) install -c env/constraints.txt -e '.[export,yolo,openvino,plot,eval,train,remote,dev]'
	@touch $(VENV)/.dev $(VENV)/.eval $@
