package reset

// Names that share an inode in the snapshot share one afterwards, as far as they are
// restored, and lie in the same subvolume of live. An inode that live has already
// carries them all if all its names are names of that inode in the snapshot too. Else
// the first name that is made does; and names that live has right but for their link
// to the others have to be replaced, which needs force.

// restoreKey names an inode of the snapshot and the subvolume of live that its names
// are restored in.
type restoreKey struct {
	tree, inode uint64
	subvol      string
}

// restoreGroup is the names of one inode that are restored.
type restoreGroup struct{ names []restoreName }

// restoreName is one of them.
type restoreName struct {
	at   restoreAt
	live *inode // live's, where it is what it should be; nil where the name is made
}

// restoreLink says what a name becomes a link of.
type restoreLink struct {
	to string
	// inode is live's at to; 0 where that is made by the restore.
	inode uint64
}

// note notes a name of an inode with several. live is its inode there, if it stays.
func (p *restorePlanner) note(a restoreAt, live *inode) {
	if a.source.Links < 2 || a.source.isDir() {
		return
	}
	key := restoreKey{a.source.place.id, a.source.number, a.subvol}
	g := p.groups[key]
	if g == nil {
		g = &restoreGroup{}
		p.groups[key] = g
	}
	g.names = append(g.names, restoreName{a, live})
}

// link decides what is linked to what.
func (p *restorePlanner) link() error {
	for key, g := range p.groups {
		if len(g.names) < 2 {
			continue
		}
		sortBy(g.names, comparePaths, func(n *restoreName) string { return n.at.path })
		if err := p.linkGroup(key, g); err != nil {
			return err
		}
	}
	return nil
}

func (p *restorePlanner) linkGroup(key restoreKey, g *restoreGroup) error {
	carrier, err := p.carrier(key, g)
	if err != nil {
		return err
	}
	var to restoreLink
	if carrier != nil {
		to = restoreLink{carrier.at.path, carrier.live.number}
	}
	for _, n := range g.names {
		switch {
		case carrier != nil && n.live != nil && n.live.number == carrier.live.number:
		case n.live != nil: // right, but for what it is linked with
			if err := p.relink(n); err != nil {
				return err
			}
			fallthrough
		default:
			if to.to == "" {
				to = restoreLink{to: n.at.path}
				continue
			}
			p.plan.links[n.at.path] = to
		}
	}
	return nil
}

// carrier finds the inode of live that the names of a group can share.
func (p *restorePlanner) carrier(key restoreKey, g *restoreGroup) (*restoreName, error) {
	tried := map[uint64]bool{} // an inode can have very many names
	for i := range g.names {
		n := &g.names[i]
		if n.live == nil || tried[n.live.number] {
			continue
		}
		tried[n.live.number] = true
		refs, err := n.at.liveDir.refs(n.live.number)
		if err != nil {
			return nil, err
		}
		ok := true
		for _, ref := range refs {
			dir, err := n.at.liveDir.path(ref.Parent)
			if err != nil {
				return nil, err
			}
			if inStage(n.at.subvol, dir) {
				continue // left by a restore that was cut off
			}
			same, err := p.isName(n.at.subvol+dir+"/"+ref.Name, key)
			if err != nil {
				return nil, err
			}
			ok = ok && same
		}
		if ok {
			return n, nil
		}
	}
	return nil, nil
}

// isName reports whether a path of the snapshot names an inode.
func (p *restorePlanner) isName(path string, key restoreKey) (bool, error) {
	at := p.source.at(rootInode)
	for _, name := range splitComponents(path) {
		if !at.isDir() || at.stub {
			return false, nil
		}
		next, err := p.source.find(at.place, name)
		if err != nil || next == nil {
			return false, err
		}
		at = next
	}
	return at.place.exists() && at.place.id == key.tree && at.number == key.inode, nil
}

// relink plans to replace a name that is right but for its links.
func (p *restorePlanner) relink(n restoreName) error {
	if hasLocks(n.live) {
		return errLocked(n.at.path)
	}
	item := n.at.item(RestoreReplace)
	item.Fields, item.Names, item.Size = FieldLinks, 1, fileSize(n.at.source.inode)
	item.LiveMode, item.LiveSize = n.live.Mode, fileSize(n.live)
	for i := range p.plan.Items {
		if p.plan.Items[i].Path == item.Path {
			p.plan.Items[i] = item
			return nil
		}
	}
	p.plan.Same--
	p.add(item)
	return nil
}
