# The programs of the package, for `nix run .#NAME`.
[
  "gpu-vfio"
  "nixos-change-password"
  "nixos-diff"
  "nixos-eval"
  "nixos-fix-permissions"
  "nixos-install-go"
  "nixos-secure-boot"
  "nixos-snapshot"
  "nixos-tpm2"
  "nixos-update"
]
