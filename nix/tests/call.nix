# Calls a module of NixOS as the plain function that it is, and looks at what it
# defines: where nixpkgs is not to be had, this is how the modules that set
# options of NixOS are tested. Nothing is merged and no type is checked; that is
# for `nix flake check`.
#
# call file arguments -> its config
# at path config -> all values that it defines there, those under a false
#   condition left out, priorities taken off
let
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    functionArgs
    head
    intersectAttrs
    isAttrs
    listToAttrs
    map
    mapAttrs
    match
    replaceStrings
    stringLength
    substring
    tail
    ;
  modules = import ./modules.nix;
  known = modules.lib;

  # What the modules use of nixpkgs' lib.
  lib = known // {
    inherit
      all
      any
      attrNames
      attrValues
      concatMap
      elem
      filter
      foldl'
      head
      listToAttrs
      mapAttrs
      stringLength
      ;
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    optional = condition: value: if condition then [ value ] else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    nameValuePair = name: value: { inherit name value; };
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasInfix = infix: text: replaceStrings [ infix ] [ "" ] text != text;
    removePrefix =
      prefix: text:
      if lib.hasPrefix prefix text then
        substring (stringLength prefix) (stringLength text) text
      else
        text;
    concatLines = concatMap' (line: line + "\n");
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
  };
  concatMap' = f: list: concatStringsSep "" (map f list);

  kind = v: if isAttrs v then v._type or null else null;

  at =
    path: v:
    if kind v == "if" then
      (if v.condition then at path v.content else [ ])
    else if kind v == "merge" then
      concatMap (at path) v.contents
    else if kind v == "priority" then
      at path v.content
    else if path == [ ] then
      [ v ]
    else if isAttrs v && v ? ${head path} then
      at (tail path) v.${head path}
    else
      [ ];

  # As systemd has it, for paths of plain characters and hyphens.
  escapeSystemdPath =
    path: replaceStrings [ "-" "/" ] [ "\\x2d" "-" ] (lib.removePrefix "/" path);

  always = {
    inherit lib;
    pkgs = {
      writeText = _: text: text;
      callPackage = path: _: path;
      jq = "/jq";
    };
    utils = { inherit escapeSystemdPath; };
    options = { };
  };
in
{
  inherit lib at;

  call =
    file: arguments:
    let
      module = import file;
      result = module (intersectAttrs (functionArgs module) (always // arguments));
    in
    result.config;

  # Messages of the assertions that do not hold.
  broken =
    config:
    map (a: a.message) (filter (a: !a.assertion) (builtins.concatLists (at [ "assertions" ] config)));

  complains = text: messages: any (message: match ".*${text}.*" message != null) messages;
}
