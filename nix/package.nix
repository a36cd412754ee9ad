# The tools: one binary that knows them all, a link for each, man pages and
# completions. `programs.nixos-go.package` installs it.
{
  lib,
  buildGoModule,
  git,
  installShellFiles,
}:
buildGoModule {
  pname = "nixos-go";
  version = import ./version.nix;

  src = import ./source.nix { inherit lib; };
  modRoot = "tools/toolkit";
  subPackages = [ "cmd/nixos-go" ];

  # The hash covers downloads alone: vendoring would copy the modules of this
  # repository too, and change with every edit.
  proxyVendor = true;
  vendorHash = import ./vendor-hash.nix;
  overrideModAttrs = import ./go-modules.nix { up = "../.."; };

  env = {
    CGO_ENABLED = "0";
    # Each module has a complete go.mod; go.work is for development.
    GOWORK = "off";
  };
  ldflags = [
    "-s"
    "-w"
    "-X nixos-go/pkg/clikit.version=${import ./version.nix}"
  ];

  nativeBuildInputs = [ installShellFiles ];
  nativeCheckInputs = [ git ];

  # Every module's tests, not the built package's alone. What needs root, loop
  # devices or a network skips itself here and runs in CI.
  checkPhase = ''
    runHook preCheck
    export GOFLAGS=''${GOFLAGS//-trimpath/}
    for module in $(find ../.. -name go.mod -exec dirname {} + | sort); do
      (cd "$module" && go test ./...)
    done
    runHook postCheck
  '';

  # Links and documents come from the tools' own definitions. The program that
  # writes them runs here, so it is built for this machine also when the
  # package is for another.
  postInstall = ''
    generate() {
      GOOS=$(go env GOHOSTOS) GOARCH=$(go env GOHOSTARCH) go run ./cmd/nixos-go "$@"
    }
    generate install-links "$out/bin"
    generate docs --man man --completions completions
    installManPage man/*
    installShellCompletion --bash completions/*.bash
    installShellCompletion --fish completions/*.fish
    installShellCompletion --zsh completions/_*
  '';

  meta = {
    description = "System manager for NixOS machines that are reset at every boot";
    mainProgram = "nixos-go";
    platforms = lib.platforms.linux;
  };
}
