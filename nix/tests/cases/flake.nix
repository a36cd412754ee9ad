# flake.nix, with inputs that are names alone: what it offers. And its modules:
# each stands on its own.
{ test, ... }:
let
  inherit (builtins)
    all
    attrNames
    attrValues
    concatMap
    filter
    functionArgs
    isFunction
    isList
    listToAttrs
    map
    match
    ;
  inherit (import ../call.nix) lib;

  dots = builtins.replaceStrings [ "." ] [ "[.]" ];
  flakeLib = lib // {
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    hasSuffix = suffix: name: match ".*${dots suffix}" name != null;
    removeSuffix = suffix: name: builtins.head (match "(.*)${dots suffix}" name);
    nixosSystem = { modules }: { inherit modules; };
  };

  # A package that can be asked for its name alone.
  package = name: {
    inherit name;
    meta = { };
    overrideAttrs = change: change { meta = { }; } // { inherit name; };
  };
  pkgsOf = system: {
    inherit system;
    stdenv.hostPlatform = { inherit system; };
    callPackage = file: _: package (toString file);
    nixfmt-tree = "nixfmt";
  };
  inputs = {
    nixpkgs = {
      lib = flakeLib;
      legacyPackages = {
        x86_64-linux = pkgsOf "x86_64-linux";
        aarch64-linux = pkgsOf "aarch64-linux";
      };
    };
    disko = {
      nixosModules.disko = "disko";
      packages = {
        x86_64-linux.disko = "disko for x86_64";
        aarch64-linux.disko = "disko for aarch64";
      };
    };
    lanzaboote.nixosModules.lanzaboote = "lanzaboote";
    home-manager.nixosModules.home-manager = "home-manager";
    plasma-manager.homeModules.plasma-manager = "plasma-manager";
  };
  self = {
    outPath = toString ../../..;
    lastModified = 7;
  }
  // outputs;
  outputs = (import ../../../flake.nix).outputs (inputs // { inherit self; });
  packages = outputs.packages.x86_64-linux;
  tools = import ../../tools.nix;

  ownModules = filter (m: builtins.isPath m) (attrValues outputs.nixosModules);
  # What NixOS gives to every module; anything else would be a specialArgs.
  given = [
    "config"
    "lib"
    "options"
    "pkgs"
    "utils"
  ];
  wanted =
    file:
    let
      module = import file;
    in
    if isFunction module then attrNames (functionArgs module) else [ ];
  importsOf =
    file:
    let
      module = import file;
      arguments = listToAttrs (
        map (name: {
          inherit name;
          value = { inherit lib; }.${name} or { };
        }) (wanted file)
      );
    in
    (module arguments).imports or [ ];
in
[
  (test "flake: outputs" (attrNames outputs) [
    "checks"
    "devShells"
    "formatter"
    "lib"
    "nixosConfigurations"
    "nixosModules"
    "overlays"
    "packages"
    "templates"
  ])
  (test "flake: for both architectures"
    (concatMap (output: attrNames outputs.${output}) [
      "packages"
      "checks"
      "devShells"
      "formatter"
    ])
    (
      concatMap (_: [
        "aarch64-linux"
        "x86_64-linux"
      ]) [ 1 2 3 4 ]
    )
  )
  (test "flake: packages, one a tool" (attrNames packages) (
    builtins.sort builtins.lessThan (
      tools
      ++ [
        "default"
        "disko"
        "initrd-reset"
        "nixos-go"
      ]
    )
  ))
  (test "flake: a tool's package runs that tool" (map (name: packages.${name}.meta.mainProgram) tools) tools)
  (test "flake: disko is the locked one" packages.disko "disko for x86_64")
  (test "flake: overlay" (attrNames (outputs.overlays.default (pkgsOf "x86_64-linux") { })) [
    "initrd-reset"
    "nixos-go"
  ])
  (test "flake: checks" (attrNames outputs.checks.x86_64-linux) [
    "functions"
    "initrd-reset"
    "nixos-go"
  ])
  (test "flake: the default module is all of them, and what they build on"
    (filter builtins.isString outputs.nixosModules.default.imports)
    [
      "disko"
      "lanzaboote"
      "home-manager"
    ]
  )
  (test "flake: three configurations for each of our hosts" (attrNames outputs.nixosConfigurations) (
    builtins.sort builtins.lessThan (
      concatMap
        (
          host:
          map (target: "${host}-${target}") [
            "Standard-Boot"
            "Secure-Boot"
            "Disk-Operation"
          ]
        )
        [
          "FRACTAL-NORTH"
          "Parallels"
          "UTM"
          "VM-TEST"
          "VM-TEST-ARM"
        ]
    )
  ))
  (test "flake: a template" (attrNames (builtins.readDir outputs.templates.default.path)) [
    ".gitignore"
    "configuration.nix"
    "flake.nix"
    "hosts"
  ])
  (test "template: its machines, by the flake's own function"
    (attrNames
      ((import ../../../templates/default/flake.nix).outputs {
        self = {
          outPath = toString ../../../templates/default;
        };
        nixos-go = self;
      }).nixosConfigurations
    )
    [
      "my-machine-Disk-Operation"
      "my-machine-Secure-Boot"
      "my-machine-Standard-Boot"
    ]
  )

  (test "modules: found" (builtins.length ownModules > 20) true)
  (test "modules: none wants a specialArgs"
    (filter (a: !(builtins.elem a given)) (concatMap wanted ownModules))
    [ ]
  )
  (test "modules: each brings the settings that it reads"
    (filter (
      file:
      isList (importsOf file)
      && file != ../../../modules/settings.nix
      && !(builtins.elem ../../../modules/settings.nix (importsOf file))
    ) ownModules)
    [ ]
  )
  (test "modules: all are there" (all (
    name: outputs.nixosModules ? ${name}
  ) [
    "immutability"
    "toolkit"
    "disk"
    "boot"
    "admin"
    "locale"
    "networking"
    "packages"
    "hardware"
    "desktop"
    "sound"
    "bash"
    "git"
    "plasma"
    "vscode"
    "1password"
    "virt"
    "podman"
    "printing"
    "sunshine"
    "mullvad"
    "openrgb"
    "settings"
  ]) true)
]
