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
tools := vfio-user-virtio frames
cargo_static := --setenv RUSTFLAGS "-C target-feature=+crt-static"

# The prepared kernel to build for: stock, or debug for `make test-debug`.
KERNEL := stock

ifdef KDIR
release = $(shell cat $(KDIR)/include/config/kernel.release)
kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(CURDIR)/build/$(release)
else
release = $(shell cat $$(tools/vm/kernel $(KERNEL))/release)
kbuild = $(in_root) --kernel $(KERNEL) -- make -s $(if $(filter debug,$(KERNEL)),LLVM=1 CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST=y) $(jobs) -C /usr/src/linux-build KERNELRELEASE=$(release) W=e \
	M=$(CURDIR) MO=$(CURDIR)/build/$(release)
endif

.PHONY: modules
modules: ## build virtio_device_stop.ko (KDIR=... for a kernel of your own)
	@mkdir -p build/$(release)
	@$(kbuild) modules
	@$(if $(filter debug,$(KERNEL)),,cp build/$(release)/virtio_device_stop.ko .)
	@echo "virtio_device_stop.ko for $(release)"

.PHONY: tools
tools: ## build the tools, as static binaries, into build/bin
	@mkdir -p build/bin
	@$(cargo) $(cargo_static) -- cargo build --quiet --locked --release --target x86_64-unknown-linux-gnu
	@cp $(addprefix build/cargo/x86_64-unknown-linux-gnu/release/,$(tools)) build/bin/
	@echo $(addprefix build/bin/,$(tools))

.PHONY: demo
demo: ## stop and resume a disk under I/O, before your eyes
	@tools/demo/run

.PHONY: test
test: ## run all tests; ends with "N passed, N failed"
	@tools/testing/all

.PHONY: test-debug
test-debug: ## run the module's guest suite on a debug kernel, which is built first (15 to 30 minutes)
	@tools/testing/debug

.PHONY: check
check: ## formatting, lints and host tests only
	@tools/testing/quick

.PHONY: install
install: modules ## install the module for the kernel in KDIR (default: the running one's)
ifdef KDIR
	@$(kbuild) modules_install
else
	$(error installing needs KDIR=/lib/modules/$$(uname -r)/build: the module has to fit the kernel)
endif

.PHONY: clean
clean: ## remove what was built in this tree; the build root and the kernels stay
	rm -rf build virtio_device_stop.ko

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
