# Recipes only call scripts, so that nothing needs `just`.
default:
    @just --list

# the main job, shown on a loop disk
demo:
    scripts/demo

# every test
test *ARGS:
    scripts/test {{ARGS}}

# formatting, linters, tidy modules
lint:
    scripts/lint

# the speed targets of the reset, as ratios
bench *ARGS:
    scripts/bench {{ARGS}}

# each fuzz target for TIME
fuzz TIME="20s":
    scripts/fuzz {{TIME}}

# the hash of what the Go modules download, for the Nix package
vendor-hash:
    nix/vendor-hash

# go mod tidy, every module
tidy:
    scripts/tidy

# the power is cut at every flush of a reset and at a sample of other instants; `all`: everywhere
powercut *ARGS:
    scripts/powercut {{ARGS}}

# whole machines under QEMU, a quarter of an hour; `just vm -run TestVM_Reset`: one test, `VM_FROM=booted just vm …`: from a stage as it is
vm *ARGS:
    scripts/vm {{ARGS}}

# a virtual machine by hand: up, run, ssh, snapshot, restore, stop …
vmtest *ARGS:
    scripts/vmtest {{ARGS}}

# man pages and completions into DIR
docs *DIR:
    scripts/docs {{DIR}}
