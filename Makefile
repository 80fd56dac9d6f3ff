# Slipway. `make help` says what there is; the README what each target leaves behind.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The Podman bindings are client only here; editors have the same tags in
# .vscode/settings.json.
BUILD_TAGS := remote,containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper
export GOFLAGS := -buildvcs=false -tags=$(BUILD_TAGS)
# Where Go's own installer puts it, for a PATH without that, such as sudo's.
export PATH := $(PATH):/usr/local/go/bin
# Static binaries, with or without a C compiler on the machine.
export CGO_ENABLED := 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILD := go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

BIN := $(CURDIR)/bin
TOOLS := $(BIN)/tools

UNIT := ./libs/... ./gen/... ./services/... ./services/proxy-config/edge/...
MODULES := $(UNIT) ./e2e/...
COMMANDS := $(patsubst %/main.go,./%,$(wildcard services/*/cmd/*/main.go services/proxy-config/edge/cmd/*/main.go e2e/cmd/*/main.go))
GO_FILES = $(shell find libs services e2e -name '*.go' -not -path '*/node_modules/*')

.PHONY: help setup build run dev test test-unit test-e2e bench sim sim-bites chaos fuzz gen gen-check lint fmt fmt-check vet clean tools

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## Install the Debian packages that are missing (as root), or say which.
	@deployments/standalone/setup.sh

build: ## Build everything into bin/.
	@echo 'Building into bin/ (some minutes the first time) ...'
	@mkdir -p bin
	@$(BUILD) -o bin/ $(COMMANDS)
	@$(BUILD) -o bin/slipway-sample-app ./services/standalone/sample

run: setup build ## Start the platform in .slipway, deploy the sample app, keep running until Ctrl-C.
	@exec deployments/standalone/run.sh

dev: setup build ## The same platform, each service its own process; Tiltfile does this with rebuilds.
	@exec $(BIN)/slipway-dev

# Each run anew (-count 1): Go's cache of results does not see Podman, PostgreSQL, bin/
# or the README, which the tests use too.
test: test-unit test-e2e sim-bites ## Every test of every module.

# Most packages wait for disks and other programs most of the time, so twice as many go
# at once as there are processors.
test-unit: setup
	go test -count 1 -timeout 5m -p $$(($$(nproc) * 2)) $(UNIT)

test-e2e: setup build
	@[[ -n "$${CLOUDFLARE_TEST_TOKEN:-}" ]] || echo 'The Cloudflare adapter is held to its contract against the fake API only: CLOUDFLARE_TEST_TOKEN is not set.'
	SLIPWAY_BIN=$(BIN) go test -count 1 -timeout 8m ./e2e/...

bench: setup build ## The figures, each beside its anchor measured in the same run.
	@deployments/standalone/setup.sh wrk
	SLIPWAY_BIN=$(BIN) go run ./e2e/bench $(ARGS)

SEEDS ?= 10000
FIRST ?= 1

sim: ## Seeded simulation of the control plane, SEEDS=n of them from FIRST=n on.
	go test -count 1 -timeout 60m ./e2e/sim -run 'TestSeeds$$' -v -seeds $(SEEDS) -first $(FIRST)

ROUNDS ?= 50
SEED ?= 1

chaos: setup build ## Kill -9 everything in turn under commands: ROUNDS=n of them, as SEED=n decides.
	SLIPWAY_BIN=$(BIN) go test -count 1 -timeout 90m ./e2e/chaos -run TestWhatever -v -rounds $(ROUNDS) -seed $(SEED)

PLANTS := $(filter-out none,$(patsubst e2e/sim/plant_%.go,%,$(wildcard e2e/sim/plant_*.go)))

sim-bites: ## Plant bugs, one after the other, and demand that the simulation catches each.
	@$(MAKE) -j 4 $(PLANTS:%=bite-%)

bite-%:
	@GOFLAGS=-buildvcs=false go test -tags=$(BUILD_TAGS),plant_$* ./e2e/sim -run 'TestSeeds$$' -v \
		| grep -E 'seed [0-9]+ fails|not caught|panic' | sed "s/^[^:]*:[0-9]*:/$*:/"

# With four for each processor at once, 30 s each of them take about two minutes on two
# processors and half of that on four.
fuzz: ## Every fuzz target, FUZZTIME=30s each; ONLY=regexp chooses.
	@.ci/fuzz

gen: tools ## Generate Go and OpenAPI from proto/.
	$(TOOLS)/buf generate

gen-check: tools
	@copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; cp -r gen "$$copy/gen"; \
	$(TOOLS)/buf generate; \
	if ! diff -r "$$copy/gen" gen; then echo 'gen/ is not what proto/ gives: commit the result of make gen' >&2; exit 1; fi

lint: tools ## golangci-lint and buf lint.
	$(TOOLS)/golangci-lint run $(UNIT) ./e2e/...
	$(TOOLS)/buf lint

vet:
	go vet $(MODULES)

fmt: ## Format all Go code.
	@gofmt -w $(GO_FILES)

fmt-check:
	@unformatted=$$(gofmt -l $(GO_FILES)); \
	if [[ -n $$unformatted ]]; then printf 'not formatted; run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; fi

clean: ## Remove .slipway with its containers and networks, and bin/.
	@deployments/standalone/clean.sh .slipway .slipway-dev .slipway-tilt
	@rm -rf bin

# Tools, each of one version, in bin/tools. A stamp with the version makes a new one
# replace the old.
tools: $(TOOLS)/.buf-v1.70.0 $(TOOLS)/.protoc-gen-go-v1.36.12 $(TOOLS)/.protoc-gen-go-grpc-v1.6.1 \
	$(TOOLS)/.protoc-gen-grpc-gateway-v2.31.0 $(TOOLS)/.protoc-gen-openapi-v0.7.1 $(TOOLS)/.golangci-lint-v2.15.0

define tool
$(TOOLS)/.$(1)-$(3):
	@echo 'installing $(1) $(3)'
	@mkdir -p $(TOOLS)
	@GOFLAGS= GOWORK=off GOBIN=$(TOOLS) go install $(2)@$(3)
	@rm -f $(TOOLS)/.$(1)-v* && touch $$@
endef
$(eval $(call tool,buf,github.com/bufbuild/buf/cmd/buf,v1.70.0))
$(eval $(call tool,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go,v1.36.12))
$(eval $(call tool,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc,v1.6.1))
$(eval $(call tool,protoc-gen-grpc-gateway,github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway,v2.31.0))
$(eval $(call tool,protoc-gen-openapi,github.com/google/gnostic/cmd/protoc-gen-openapi,v0.7.1))
$(eval $(call tool,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,v2.15.0))
