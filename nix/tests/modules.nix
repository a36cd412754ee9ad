# A small stand-in for nixpkgs' module system, in builtins alone, so that the
# hosts can be evaluated where nixpkgs is not to be had. It knows what
# modules/settings.nix uses and nothing else: whatever it does not know is an
# error, never a guess. The real thing is `nix flake check`.
#
# evaluate modules -> { settings, assertions, warnings }
let
  inherit (builtins)
    all
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    functionArgs
    head
    isAttrs
    isBool
    isFloat
    isFunction
    isInt
    isList
    isPath
    isString
    listToAttrs
    map
    mapAttrs
    match
    seq
    toJSON
    ;

  fail = path: text: throw "${concatStringsSep "." path}: ${text}";

  # Types: check one value, and merge what several definitions say. `merge`
  # gets path and the values of the highest priority, all checked.
  one =
    path: values:
    if all (v: v == head values) values then
      head values
    else
      fail path "conflicting definitions: ${toJSON values}";

  plain = name: check: {
    inherit name check;
    merge = one;
  };

  types = rec {
    str = plain "string" isString;
    bool = plain "bool" isBool;
    int = plain "int" isInt;
    port = plain "port" (v: isInt v && v >= 0 && v <= 65535);

    ints = {
      positive = plain "positive int" (v: isInt v && v > 0);
      unsigned = plain "unsigned int" (v: isInt v && v >= 0);
      between = low: high: plain "int in range" (v: isInt v && v >= low && v <= high);
    };

    numbers.between =
      low: high: plain "number in range" (v: (isInt v || isFloat v) && v >= low && v <= high);

    strMatching =
      regex: plain "string matching ${regex}" (v: isString v && match regex v != null);

    enum = values: plain "one of ${toJSON values}" (v: elem v values);

    nullOr = type: {
      name = "null or ${type.name}";
      check = v: v == null || type.check v;
      merge =
        path: values:
        if all (v: v == null) values then
          null
        else if elem null values then
          fail path "both null and a value are defined"
        else
          type.merge path values;
    };

    listOf = type: {
      name = "list of ${type.name}";
      check = isList;
      merge =
        path: values:
        map (
          v:
          if type.check v then type.merge path [ v ] else fail path "${describe v} is no ${type.name}"
        ) (concatLists values);
    };

    attrsOf = type: {
      name = "attributes of ${type.name}";
      check = isAttrs;
      merge =
        path: values:
        let
          names = attrNames (foldl' (a: b: a // b) { } values);
        in
        listToAttrs (
          map (name: {
            inherit name;
            value = mergeType type (path ++ [ name ]) (
              concatMap (v: if v ? ${name} then [ v.${name} ] else [ ]) values
            );
          }) names
        );
    };

    submodule = module: {
      name = "submodule";
      check = isAttrs;
      merge = path: values: evalTree path ([ module ] ++ map (v: { config = v; }) values);
    };
  };

  lib = {
    inherit types;
    inherit (builtins)
      attrValues
      elem
      filter
      head
      ;
    mkOption = option: option // { _type = "option"; };
    literalExpression = text: { inherit text; };
    mkDefault = priority 1000;
    mkForce = priority 50;
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    optionals = condition: list: if condition then list else [ ];
    filterAttrs =
      keep: set:
      listToAttrs (
        concatMap (
          name:
          if keep name set.${name} then
            [
              {
                inherit name;
                value = set.${name};
              }
            ]
          else
            [ ]
        ) (attrNames set)
      );
  };

  priority = level: content: {
    _type = "priority";
    inherit level content;
  };

  describe =
    v:
    if isPath v then
      "a Nix path"
    else if isFunction v then
      "a function"
    else
      toJSON v;

  kind = v: if isAttrs v then v._type or null else null;

  # A definition, with its conditions and priority taken off: a list of
  # { level, value }, empty when a condition is false.
  unwrap =
    level: v:
    if kind v == null then
      [
        {
          inherit level;
          value = v;
        }
      ]
    else if kind v == "if" then
      (if v.condition then unwrap level v.content else [ ])
    else if kind v == "priority" then
      unwrap v.level v.content
    else
      throw "definition of the unknown kind ${kind v}";

  # A condition or priority around a whole tree goes to each of its branches:
  # which options a tree defines must not depend on the condition.
  spread =
    tree:
    if kind tree == null then
      tree
    else
      mapAttrs (_: content: tree // { inherit content; }) (spread tree.content);

  mergeType =
    type: path: definitions:
    let
      all' = concatMap (unwrap 100) definitions;
      best = foldl' (a: d: if d.level < a then d.level else a) 10000 all';
      values = map (d: d.value) (filter (d: d.level == best) all');
      wrong = filter (v: !(type.check v)) values;
    in
    if values == [ ] then
      fail path "is used but not defined"
    else if wrong != [ ] then
      fail path "${describe (head wrong)} is no ${type.name}"
    else
      type.merge path values;

  optionKeys = [
    "_type"
    "type"
    "default"
    "defaultText"
    "example"
    "description"
    "readOnly"
    "apply"
  ];

  evalOption =
    path: option: definitions:
    let
      unknown = filter (k: !(elem k optionKeys)) (attrNames option);
      given = concatMap (unwrap 100) definitions;
      # The default has the lowest priority, as in nixpkgs.
      all' = definitions ++ (if option ? default then [ (priority 1500 option.default) ] else [ ]);
      value = mergeType option.type path all';
    in
    if unknown != [ ] then
      fail path "the option has the unknown attribute ${head unknown}"
    else if !(isString (option.description or null)) then
      fail path "the option has no description"
    else if (option.readOnly or false) && given != [ ] then
      fail path "is read-only"
    else
      (option.apply or (v: v)) value;

  isOption = v: kind v == "option";

  # options: a tree with options at its leaves. definitions: a list of trees.
  evalOptions =
    path: options: definitions:
    let
      defs = map spread definitions;
      undeclared = concatMap (d: filter (name: !(options ? ${name})) (attrNames d)) defs;
    in
    if undeclared != [ ] then
      fail (path ++ [ (head undeclared) ]) "this option does not exist"
    else
      mapAttrs (
        name: option:
        let
          here = path ++ [ name ];
          mine = concatMap (d: if d ? ${name} then [ d.${name} ] else [ ]) defs;
        in
        if isOption option then evalOption here option mine else evalOptions here option mine
      ) options;

  mergeTrees =
    path: a: b:
    foldl' (
      tree: name:
      tree
      // {
        ${name} =
          if !(tree ? ${name}) then
            b.${name}
          else if isOption tree.${name} || isOption b.${name} then
            fail (path ++ [ name ]) "the option is declared twice"
          else
            mergeTrees (path ++ [ name ]) tree.${name} b.${name};
      }
    ) a (attrNames b);

  # One module and all that it imports, as { options, config }.
  load =
    arguments: module:
    let
      loaded = if isPath module then import module else module;
      unknown = filter (a: !(arguments ? ${a})) (attrNames (functionArgs loaded));
      set =
        if !(isFunction loaded) then
          loaded
        else if unknown != [ ] then
          throw "${describe module}: a module wants the argument ${head unknown}"
        else
          loaded arguments;
      full = set ? config || set ? options || set ? imports;
      strange = filter (
        k:
        !(elem k [
          "config"
          "imports"
          "options"
        ])
      ) (attrNames set);
    in
    if full && strange != [ ] then
      throw "a module has the unknown attribute ${head strange}"
    else
      concatMap (load arguments) (set.imports or [ ])
      ++ [
        {
          options = set.options or { };
          config = if full then set.config or { } else set;
        }
      ];

  evalTree =
    path: modules:
    let
      loaded = concatMap (load { inherit config lib; }) modules;
      options = foldl' (mergeTrees path) { } (map (m: m.options) loaded);
      config = evalOptions path options (map (m: m.config) loaded);
    in
    config;

  # The two options of NixOS that settings.nix sets.
  nixos = {
    options = {
      assertions = lib.mkOption {
        type = types.listOf (plain "assertion" (a: isBool a.assertion && isString a.message));
        default = [ ];
        description = "As in NixOS.";
      };
      warnings = lib.mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "As in NixOS.";
      };
    };
  };
in
{
  inherit lib;

  evaluate =
    modules:
    let
      config = evalTree [ ] ([ nixos ../../modules/settings.nix ] ++ modules);
    in
    # A value that is wrong anywhere is an error, used or not.
    seq (toJSON config.settings) config;
}
