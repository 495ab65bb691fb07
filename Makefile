# make run     guard this host with the built-in defaults (as root)
# make test    install what the tests need, if it is missing, and run them all
# make help    the other targets

SHELL       := /bin/sh
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
GO          ?= go
FUZZTIME    ?= 1m
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT  := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

.PHONY: build packages release archives sbom checksums run test deps lint unit test-kernel soak bench bench-deps bench-report bench-plots microbench fuzz clean help

build: bin/nftsentry

.PHONY: bin/nftsentry
bin/nftsentry: go
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/nftsentry

# packages builds .deb, .rpm and .apk for amd64 and arm64 into dist. VERSION names
# their version where the commit has no tag, as in VERSION=1.2.3; see
# contrib/packages/build for more.
packages: go
	@GO=$(GO) contrib/packages/build $(KINDS)

# release builds all that is published into dist, which is removed first: packages,
# archives, lists of what is in the program, and checksums of them all. VERSION
# names a version other than that of the commit's tag, as in VERSION=1.2.3; see
# contrib/release/build for more.
release: go
	@GO=$(GO) contrib/release/build

archives sbom checksums: go
	@GO=$(GO) contrib/release/build $@

run: build
	bin/nftsentry run

test: deps lint unit test-kernel

# deps installs the Debian packages that the tests need, and unpacks promtool into bin.
deps: go
	@integration/deps

lint: go
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet -tags bench,intrusion,kernel ./...
	$(GO) run $(STATICCHECK) -tags bench,intrusion,kernel ./...
	$(GO) run $(ACTIONLINT)
	shellcheck .ci/run integration/deps integration/bench/deps docs/benchmarks/plot integration/kernel/fetch integration/testdata/clean.sh integration/packages/testdata/systemctl contrib/openrc/nftsentry
	shellcheck contrib/release/build contrib/packages/build contrib/packages/setup contrib/packages/deb/* contrib/packages/rpm/* contrib/packages/apk/*

# unit runs the tests of the packages side by side, and then those with real
# packets, which time things, with the machine for themselves. It runs both,
# whatever comes of the first.
unit: go
	@status=0; packages=$$($(GO) list ./...) || exit 1; \
	$(GO) test -race -timeout 20m $$(echo "$$packages" | grep -v '/integration$$') || status=1; \
	$(GO) test -race -timeout 20m ./integration || status=1; \
	exit $$status

# test-kernel boots older kernels under qemu, and runs there what asks the kernel.
test-kernel: deps
	$(GO) test -tags kernel -count=1 -v -timeout 20m ./integration/kernel

# soak does at full size, and without the race detector, what the tests of
# resilience do in CI: a thousand kills, full sets, a hundred flushes. It takes
# some twenty minutes, and wants the machine for itself.
soak: deps
	NFTSENTRY_SOAK=1 $(GO) test -count=1 -v -timeout 2h -run '^TestResilience' ./integration

# bench measures nftsentry beside its peers, prints tables, and writes the raw
# values into dist/bench, or where NFTSENTRY_BENCH_OUT says. BENCH=Leak runs one
# experiment only. It takes half an hour, wants root, and the machine for itself;
# peers that are not installed are named and left out.
bench: export NFTSENTRY_BENCH_OUT ?= $(CURDIR)/dist/bench
bench: go
	@grep -q '^func TestBench$(BENCH)' integration/bench/*_test.go || { \
		echo "no experiment is called \"$(BENCH)\": there are" \
			$$(sed -n 's/^func TestBench\([A-Za-z]*\).*/\1/p' integration/bench/*_test.go) >&2; exit 2; }
	$(GO) test -tags bench -count=1 -v -timeout 60m -run '^TestBench$(BENCH)' ./integration/bench

# bench-deps installs the Debian packages of the peers, and of what scans, floods and draws.
bench-deps:
	@integration/bench/deps

# bench-report writes the tables of docs/benchmarks.md from docs/benchmarks/*.csv
# and from go.txt, which microbench has printed, and bench-plots the pictures.
bench-report: go
	@[ ! -e docs/benchmarks/go.txt ] || $(GO) run $(BENCHSTAT) nftsentry=docs/benchmarks/go.txt > docs/benchmarks/go-stat.txt
	$(GO) run ./integration/bench/report

bench-plots: go
	@GO=$(GO) docs/benchmarks/plot

# microbench measures, in three minutes or so, what each packet and each block
# costs the program, in time and memory. What it prints is in bin/microbench.txt
# before it is summed up, so that benchstat can compare it with a later one.
microbench: go
	@mkdir -p bin
	$(GO) test -run '^$$' -bench '^Benchmark(Datagram|Flood|Event|Run|Transaction|Block|Hear)$$' -benchmem -benchtime 50ms -count 10 \
		./listener ./controller ./nft ./cmd/nftsentry > bin/microbench.txt || { cat bin/microbench.txt; exit 1; }
	@$(GO) run $(BENCHSTAT) bin/microbench.txt
	@echo && echo "The same events, with more blocks in place:" && echo
	@$(GO) run $(BENCHSTAT) -filter '.name:Event .unit:sec/op' -row /event -col /blocks bin/microbench.txt

# fuzz runs each fuzz target for FUZZTIME, a minute unless told otherwise.
fuzz: go
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

clean:
	rm -rf bin dist

help:
	@sed -n 's/^# make \([a-z]*\) */make \1\t/p' Makefile | expand -t 18
	@echo "make build        bin/nftsentry, without cgo"
	@echo "make packages     .deb, .rpm and .apk for amd64 and arm64, into dist; VERSION=1.2.3 and KINDS=deb choose"
	@echo "make release      all that is published, into dist, which is removed first; VERSION=1.2.3 chooses"
	@echo "make lint         gofmt, go vet, staticcheck, actionlint, shellcheck"
	@echo "make test-kernel  the tests that ask the kernel, on older kernels under qemu"
	@echo "make bench        nftsentry beside its peers, as tables; BENCH=Leak chooses one experiment"
	@echo "make bench-deps   install the peers and tools that make bench knows"
	@echo "make bench-report the tables of docs/benchmarks.md, from the raw values; make bench-plots its pictures"
	@echo "make microbench   time and memory for each packet and each block, as benchstat's tables: 3 minutes"
	@echo "make fuzz         each fuzz target for a minute; FUZZTIME=10s chooses"
	@echo "make soak         kills, floods, full disks and full sets at full size: 20 minutes"
	@echo "make clean        remove bin and dist"

.PHONY: go
go:
	@command -v $(GO) >/dev/null || { echo "nftsentry is built with Go 1.26 or later, and there is no '$(GO)' here: see https://go.dev/doc/install" >&2; exit 1; }
