# nix/lib/split.nix: which rule goes to which volume, and which is an error.
{ test, functions, ... }:
let
  inherit (builtins) concatMap listToAttrs map;

  volume = name: mountPoint: reset: { inherit name mountPoint reset; };
  root = volume "@root" "/" true;
  home = volume "@home" "/home" true;
  nix = volume "@nix" "/nix" false;
  alice = volume "@alice" "/home/alice" true;

  short =
    volumes: keep: exclude:
    let
      shared = functions.split volumes keep exclude;
    in
    if shared.errors != [ ] then
      shared.errors
    else
      {
        keep = listToAttrs (
          map (v: {
            inherit (v) name;
            value = v.keep;
          }) shared.volumes
        );
        exclude = concatMap (v: map (rule: "${v.name}:${rule}") v.exclude) shared.volumes;
        inherit (shared) withoutEffect;
      };
in
[
  (test "split: the longest mount point first"
    (short
      [
        root
        home
        nix
      ]
      [
        "/etc/ssh/"
        "//etc//ssh"
        "/home/alice/Documents"
        "/nix/var/nix"
      ]
      [ "/home/alice/Documents/tmp" ]
    )
    {
      keep = {
        "@root" = [ "/etc/ssh" ];
        "@home" = [ "/alice/Documents" ];
      };
      exclude = [ "@home:/alice/Documents/tmp" ];
      withoutEffect = [ "/nix/var/nix" ];
    }
  )
  (test "split: * reaches into every volume it can"
    (short
      [
        root
        home
      ]
      [
        "/*/alice"
        "/home/*/.ssh"
      ]
      [ ]
    )
    {
      keep = {
        "@root" = [ "/*/alice" ];
        "@home" = [
          "/*/.ssh"
          "/alice"
        ];
      };
      exclude = [ ];
      withoutEffect = [ ];
    }
  )
  (test "split: * into a volume below"
    (short
      [
        root
        home
        alice
      ]
      [ "/home/*/Documents" ]
      [ ]
    )
    {
      keep = {
        "@root" = [ ];
        "@home" = [ "/*/Documents" ];
        "@alice" = [ "/Documents" ];
      };
      exclude = [ ];
      withoutEffect = [ ];
    }
  )
  (test "split: a literal way into a deeper volume is its own alone"
    (short
      [
        root
        home
        alice
      ]
      [ "/home/alice/Documents" ]
      [ ]
    )
    {
      keep = {
        "@root" = [ ];
        "@home" = [ ];
        "@alice" = [ "/Documents" ];
      };
      exclude = [ ];
      withoutEffect = [ ];
    }
  )
  (test "split: above another volume"
    (short
      [
        root
        (volume "@log" "/var/log" true)
      ]
      [ "/var" ]
      [ ]
    )
    [
      ''rule "/var": the path is above the mount point of another volume that is reset (volume at "/var/log")''
    ]
  )
  (test "split: above a volume that is never reset"
    (short
      [
        root
        (volume "@log" "/var/log" false)
      ]
      [ "/var" ]
      [ ]
    )
    {
      keep."@root" = [ "/var" ];
      exclude = [ ];
      withoutEffect = [ ];
    }
  )
  (test "split: the mount point itself"
    (short
      [
        root
        home
      ]
      [
        "/home"
        "/"
      ]
      [ ]
    )
    [
      ''rule "/home": the path is a volume's own mount point (volume at "/home")''
      ''rule "/": the path is a volume's own mount point''
    ]
  )
  (test "split: * over a mount point is an error for keep"
    (short
      [
        root
        home
        alice
      ]
      [ "/home/*" ]
      [ ]
    )
    [ ''rule "/home/*": the path is a volume's own mount point (volume at "/home/alice")'' ]
  )
  (test "split: and is shared out for exclude"
    (short
      [
        root
        home
        alice
      ]
      [ ]
      [ "/home/*" ]
    )
    {
      keep = {
        "@root" = [ ];
        "@home" = [ ];
        "@alice" = [ ];
      };
      exclude = [ "@home:/*" ];
      withoutEffect = [ ];
    }
  )
  (test "split: reserved names"
    (short
      [
        root
        home
      ]
      [
        "/home/.immutability-trash/x"
        "/.boot-ready"
      ]
      [ ]
    )
    [
      ''rule "/home/.immutability-trash/x": the name is reserved for the reset itself (volume at "/home")''
      ''rule "/.boot-ready": the name is reserved for the reset itself (volume at "/")''
    ]
  )
  (test "split: a reserved name deeper down is a name like others"
    (short [ root ] [ "/a/.boot-ready" ] [ ]).keep
    { "@root" = [ "/a/.boot-ready" ]; }
  )
  (test "split: one mount point twice"
    (short
      [
        home
        (volume "@other" "/home/" true)
      ]
      [ ]
      [ ]
    )
    [ ''volumes "@home" and "@other" have the same mount point "/home/"'' ]
  )
]
