# Shares out the rules of what persists, written as absolute paths of the
# mounted system, among the volumes that are reset. The same semantics as
# Split of pkg/keep, so that what Nix writes the reset accepts:
#
# - A rule goes to every volume that holds a path it matches. Without `*` that
#   is the one with the longest mount point above the path. With `*` there can
#   be several: `/*/alice` goes to the volume at /home as `/alice`, and to the
#   one at / as it is. `/home/*/Downloads` goes to the one at /home alone.
# - A keep rule that matches the mount point of a volume that is reset, or a
#   directory above it, is an error: its owner means the volume too, which
#   keeps what its own rules say and nothing more. An exclude rule is so only
#   without `*`.
# - A rule that reaches no volume that is reset is without effect.
#
# split volumes keep exclude -> { volumes, withoutEffect, errors }
#   volumes: as given, each { name, mountPoint, reset, … }; out come those that
#   are reset, in the same order, with keep and exclude: relative to the mount
#   point, normalised, sorted, each once.
let
  inherit (builtins)
    any
    attrNames
    concatMap
    elem
    elemAt
    filter
    genList
    head
    length
    listToAttrs
    map
    ;
  paths = import ./paths.nix;
  inherit (paths)
    components
    isGlob
    isPrefix
    join
    matchPrefix
    sublist
    ;

  reserved = [
    ".boot-ready"
    ".immutability-trash"
  ];

  # Sorted by bytes, each once: the names of an attribute set are.
  canonical =
    list:
    attrNames (
      listToAttrs (
        map (name: {
          inherit name;
          value = null;
        }) list
      )
    );

  drop = n: list: sublist n (length list) list;

  quote = text: ''"${text}"'';

  mountErrors =
    volumes:
    concatMap (
      i:
      let
        v = elemAt volumes i;
        problem = paths.problem v.mountPoint;
        here = components v.mountPoint;
        twins = filter (w: components w.mountPoint == here) (sublist 0 i volumes);
      in
      if problem != null then
        [ "mount point ${quote v.mountPoint} of volume ${quote v.name}: ${problem}" ]
      else
        map (
          w: "volumes ${quote w.name} and ${quote v.name} have the same mount point ${quote v.mountPoint}"
        ) twins
    ) (paths.indices volumes);

  # One rule: { text, error, targets }, a target being { index, relative }.
  share =
    volumes: isKeep: text:
    let
      problem = paths.problem text;
      rule = map paths.squeezeStars (components text);
      mounts = map (v: v // { at = components v.mountPoint; }) volumes;

      covered = filter (v: v.reset && length rule <= length v.at && matchPrefix rule v.at) mounts;
      refuseCovered = isKeep || !(any isGlob rule);

      # Does some path below the mount point match, that is not below the
      # mount point of a deeper volume? A `*` matches more names than there
      # are volumes, so only a rule that spells out the way to the deeper
      # mount point lies in that volume whole.
      reaches =
        v:
        let
          depth = length v.at;
          shadows =
            w:
            let
              end = length w.at;
              way = sublist depth (end - depth) rule;
            in
            end > depth
            && length rule >= end
            && isPrefix v.at w.at
            && way == drop depth w.at
            && !(any isGlob way);
        in
        length rule > depth && matchPrefix (sublist 0 depth rule) v.at && !(any shadows mounts);

      targets = concatMap (
        index:
        let
          v = elemAt mounts index;
        in
        if v.reset && reaches v then
          [
            {
              inherit index;
              relative = drop (length v.at) rule;
            }
          ]
        else
          [ ]
      ) (paths.indices mounts);

      named = filter (t: elem (head t.relative) reserved) targets;

      about = v: ''rule ${quote text}: ${v.why} (volume at ${quote v.at})'';
      error =
        if problem != null then
          "rule ${quote text}: ${problem}"
        else if rule == [ ] then
          "rule ${quote text}: the path is a volume's own mount point"
        else if refuseCovered && covered != [ ] then
          about {
            at = (head covered).mountPoint;
            why =
              if length rule == length (head covered).at then
                "the path is a volume's own mount point"
              else
                "the path is above the mount point of another volume that is reset";
          }
        else if named != [ ] then
          about {
            at = (elemAt volumes (head named).index).mountPoint;
            why = "the name is reserved for the reset itself";
          }
        else
          null;
    in
    {
      inherit error;
      text = join rule;
      targets = if error == null then targets else [ ];
    };
in
volumes: keep: exclude:
let
  wrongMounts = mountErrors volumes;
  kept = map (share volumes true) keep;
  excluded = map (share volumes false) exclude;
  both = kept ++ excluded;

  rulesOf =
    index: shared:
    canonical (
      concatMap (s: map (t: join t.relative) (filter (t: t.index == index) s.targets)) shared
    );
in
if wrongMounts != [ ] then
  {
    errors = wrongMounts;
    volumes = [ ];
    withoutEffect = [ ];
  }
else
  {
    errors = filter (e: e != null) (map (s: s.error) both);
    withoutEffect = canonical (
      map (s: s.text) (filter (s: s.error == null && s.targets == [ ]) both)
    );
    volumes = concatMap (
      index:
      let
        v = elemAt volumes index;
      in
      if v.reset then
        [
          (
            v
            // {
              keep = rulesOf index kept;
              exclude = rulesOf index excluded;
            }
          )
        ]
      else
        [ ]
    ) (genList (i: i) (length volumes));
  }
