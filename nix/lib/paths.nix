# Absolute paths as lists of components, and the `*` of a rule.
let
  inherit (builtins)
    all
    concatStringsSep
    elem
    elemAt
    filter
    genList
    head
    isString
    length
    replaceStrings
    split
    stringLength
    substring
    tail
    ;
in
rec {
  # sublist start count list: at most `count` elements, from `start` on.
  sublist =
    start: count: list:
    let
      rest = length list - start;
      n =
        if rest < 0 then
          0
        else if rest < count then
          rest
        else
          count;
    in
    genList (i: elemAt list (start + i)) n;

  # The names between the slashes of a path; doubled and trailing slashes are
  # dropped. No check: see problem.
  components = path: filter (c: isString c && c != "") (split "/" path);

  # The inverse of components.
  join = parts: "/" + concatStringsSep "/" parts;

  # What is wrong with an absolute path, as the end of a sentence, or null.
  problem =
    path:
    if path == "" then
      "the path is empty"
    else if substring 0 1 path != "/" then
      "the path does not begin with a slash"
    else if
      !(all (
        c:
        !(elem c [
          "."
          ".."
        ])
      ) (components path))
    then
      ''the path contains a "." or ".." component''
    else
      null;

  isGlob = component: replaceStrings [ "*" ] [ "" ] component != component;

  # A run of `*` means the same as one.
  squeezeStars =
    component:
    let
      squeezed = replaceStrings [ "**" ] [ "*" ] component;
    in
    if squeezed == component then component else squeezeStars squeezed;

  # Does a rule's component match a name? `*` is any run of bytes, empty too;
  # every other byte stands for itself.
  matchComponent =
    pattern: name:
    if !(isGlob pattern) then
      pattern == name
    else
      let
        pieces = filter isString (split "[*]" pattern);
        first = head pieces;
        last = elemAt pieces (length pieces - 1);
        from = stringLength first;
        to = stringLength name - stringLength last;
      in
      from <= to
      && substring 0 from name == first
      && substring to (-1) name == last
      && inOrder (sublist 0 (length pieces - 2) (tail pieces)) (substring from (to - from) name);

  # Does each component of a pattern match the name at its place? The names
  # are at least as many.
  matchPrefix =
    pattern: names: all (i: matchComponent (elemAt pattern i) (elemAt names i)) (indices pattern);

  # Is the path of `parent` that of `child`, or above it?
  isPrefix =
    parent: child: length parent <= length child && sublist 0 (length parent) child == parent;

  indices = list: genList (i: i) (length list);

  # Do the pieces occur in the text one after the other, without overlap?
  # Taking the first place for each piece finds a way whenever there is one.
  inOrder =
    pieces: text:
    if pieces == [ ] then
      true
    else
      let
        at = find (head pieces) text 0;
      in
      at != null && inOrder (tail pieces) (substring (at + stringLength (head pieces)) (-1) text);

  find =
    piece: text: at:
    if at + stringLength piece > stringLength text then
      null
    else if substring at (stringLength piece) text == piece then
      at
    else
      find piece text (at + 1);
}
