# SPDX-License-Identifier: GPL-2.0-only
#
# The front door. `make help` says what there is. The kernel's build uses Kbuild instead.
#
# KDIR=<kernel build tree> builds the module for a kernel of your own, with this machine's compilers. Without it, everything is built
# for Debian's newest kernel and by its compilers, in a build root outside of this tree (see tools/vm).

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := modules

jobs := -j$(shell nproc)
in_root := tools/vm/enter
cargo := cd tools && vm/enter
tools := vfio-user-virtio virtio-stop frames guest-agent test-runner bench bench-guest watch-exchanges
programs := at_once attach_xdp bind_xsk fail_allocation fuzz_files fuzz_owner hostile owner poll_file reset_unit
cargo_static := --setenv RUSTFLAGS "-C target-feature=+crt-static"

# The prepared kernel to build for: stock, debug for `make test-debug`, kcsan for `make test-kcsan`, or sid for `make test-sid`.
KERNEL := stock

ifdef KDIR
release = $(shell cat $(KDIR)/include/config/kernel.release)
kbuild = $(MAKE) -C $(KDIR)
else
release = $(shell cat $$(tools/vm/kernel $(KERNEL))/release)
kbuild = $(in_root) --kernel $(KERNEL) -- make -s $(if $(filter debug kcsan,$(KERNEL)),LLVM=1) $(if $(filter debug,$(KERNEL)),CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST=y) $(jobs) -C /usr/src/linux-build KERNELRELEASE=$(release) W=e
endif
built = $(CURDIR)/build/$(release)
kbuild_module = $(kbuild) M=$(CURDIR) MO=$(built)
kbuild_samples = $(kbuild) M=$(CURDIR)/samples/kernel-callers MO=$(built)/samples KBUILD_EXTRA_SYMBOLS=$(built)/Module.symvers

.PHONY: fits
fits:
ifdef KDIR
	@RUSTC="$(RUSTC)" BINDGEN="$(BINDGEN)" tools/check-kdir $(KDIR)
endif

.PHONY: modules
modules: fits ## build virtio_device_stop.ko (KDIR=... for a kernel of your own)
	@mkdir -p build/$(release)
	@$(kbuild_module) modules
	@$(if $(filter stock,$(KERNEL)),cp build/$(release)/virtio_device_stop.ko .)
	@echo "virtio_device_stop.ko for $(release)"

.PHONY: samples
samples: modules ## build the modules in samples/kernel-callers, which stop devices, too
	@mkdir -p build/$(release)/samples
	@$(kbuild_samples) modules
	@echo build/$(release)/samples/*.ko

.PHONY: tools
tools: ## build the tools, as static binaries, into build/bin
	@mkdir -p build/bin
	@$(cargo) $(cargo_static) -- cargo build --quiet --locked --release --target x86_64-unknown-linux-gnu
	@cp --remove-destination $(addprefix build/cargo/x86_64-unknown-linux-gnu/release/,$(tools)) build/bin/
	@$(MAKE) $(addprefix build/selftests/,$(programs)) $(addprefix build/firmware/,boot_sector efi_program.efi)
	@echo $(addprefix build/bin/,$(tools))

# The programs of the kselftest suites.
vpath %.c $(wildcard tools/testing/selftests/*)
build/selftests/%: %.c src/uapi/virtio_device_stop.h
	@mkdir -p build/selftests
	@$(in_root) -- gcc -static -O2 -Wall -Wextra -Werror -Isrc/uapi -o $@ $<

# What the tests of the reference device have firmware boot.
build/firmware/boot_sector: tools/testing/firmware/boot_sector.S
	@mkdir -p $(@D)
	@$(in_root) -- gcc -m32 -nostdlib -static -Wl,--oformat=binary,--build-id=none,-Ttext=0x7c00 -o $@ $<

build/firmware/%.efi: tools/testing/firmware/%.c
	@mkdir -p $(@D)
	@$(in_root) -- clang --target=x86_64-unknown-windows -ffreestanding -mno-red-zone -O2 -Wall -Wextra -Werror -nostdlib \
		-fuse-ld=lld -Wl,-entry:efi_main -Wl,-subsystem:efi_application -o $@ $<

.PHONY: demo
demo: ## stop and resume a disk under I/O, before your eyes
	@tools/demo/run

.PHONY: demo-exchange
demo-exchange: ## exchange the process behind devices under I/O, before your eyes; a picture in build/exchange.svg
	@tools/demo/exchange

.PHONY: test
test: ## 30 min: check, and the guest tests on the stock kernel; ends with "N passed, N failed"
	@tools/testing/tier test

.PHONY: test-debug
test-debug: ## 11 min: KUnit and the module's guest tests on a debug kernel, whose first build takes 20 min
	@tools/testing/tier test-debug

.PHONY: test-kcsan
test-kcsan: ## look for data races, by hand, on a kernel with KCSAN, whose first build takes 15 min
	@tools/testing/tier test-kcsan

.PHONY: test-sid
test-sid: ## 8 min: the module's guest tests on the newest kernel of Debian's sid and experimental, built by sid's compilers
	@tools/testing/tier test-sid

.PHONY: test-all
test-all: ## hours: everything, with all cycles, on both kernels, and fuzz
	@tools/testing/tier test-all

.PHONY: fuzz
fuzz: ## 4 min: fuzz the reference device, a minute each target, as test-all does (FUZZ=control: only that)
	@tools/fuzz/run 60 $(FUZZ)

.PHONY: soak
soak: modules tools ## 30 min: everything at random under load (MINUTES=, SEED=, PROTOCOL=suspend); CYCLES=100000: that many plain stops
	@SEED=$(SEED) tools/testing/ends --protocol $(or $(PROTOCOL),device-stop) $(if $(CYCLES),end_soak_cycles=$(CYCLES),end_soak=$(or $(MINUTES),30))

.PHONY: bench
bench: modules tools ## 10 min: what a stop costs, a table, and pictures in build/bench (BENCH=stop: only that)
	@build/bin/bench $(BENCH)

.PHONY: check
check: ## 2 min: formatting, lints and host tests
	@tools/testing/quick

.PHONY: coverage
coverage: ## which lines the host tests reach, by file (FILES=src/machine.rs: which of its lines they do not)
	@tools/testing/coverage $(FILES)

.PHONY: coverage-guest
coverage-guest: samples tools ## 1 h: which lines of the module the guest's tests reach (TESTS=test_still: only that; FILES= as above)
	@tools/testing/coverage --guest $(TESTS) $(FILES)

.PHONY: mutants
mutants: ## 1 h: whether the host tests notice any small change to what decides in the module (FILES=src/machine.rs: only there)
	@tools/testing/mutants $(FILES)

.PHONY: mutants-kernel
mutants-kernel: samples tools ## 40 min: whether the guest's tests notice what is taken out of the rest of the module (MUTANTS=01: only that)
	@$(MAKE) samples KERNEL=debug KDIR=
	@tools/testing/mutants-kernel $(MUTANTS)

.PHONY: install
install: modules ## install the module for the kernel in KDIR (default: the running one's)
ifdef KDIR
	@$(kbuild_module) $(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR)) modules_install
else
	$(error installing needs KDIR=/lib/modules/$$(uname -r)/build: the module has to fit the kernel)
endif

.PHONY: install-tools
install-tools: ## install virtio-stop, and what loads the module early, after make tools (DESTDIR=, PREFIX=/usr/local)
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) tools/packaging/install-tools

.PHONY: packages
packages: modules tools ## build Debian packages of the module, its source and the tool, into build/packages
	@tools/packaging/build

.PHONY: clean
clean: ## remove what was built in this tree; the build root and the kernels stay
	rm -rf build virtio_device_stop.ko

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
