package docs

import (
	"fmt"
	"strings"

	"nixos-go/pkg/clikit"
)

// man is the page in the language of man(7).
func (p page) man() string {
	m := &roff{}
	m.linef(`.TH "%s" "8" "" "nixos-go %s" "System Administration"`, strings.ToUpper(p.name), clikit.Version())
	m.linef(".nh") // no hyphenation: names must be found by searching
	m.linef(".ad l")
	m.section("NAME")
	m.text(p.name + " - " + p.usage)
	m.section("SYNOPSIS")
	m.synopsis(p.synopsis)
	p.eachCommand(func(_ string, c command) {
		m.linef(".br")
		m.synopsis(c.synopsis)
	})
	m.section("DESCRIPTION")
	m.prose(p.description)
	m.commands(p)
	m.section("OPTIONS")
	m.flags(p.flags)
	m.section("EXIT STATUS")
	m.tagged("0", "Success.")
	m.tagged("1", "A failure, told on standard error.")
	m.tagged("2", "A wrong command line; nothing was changed.")
	m.files("ENVIRONMENT", append(p.doc.Environment, environment...))
	m.files("FILES", p.doc.Files)
	if len(p.doc.Examples) > 0 {
		m.section("EXAMPLES")
		for _, e := range p.doc.Examples {
			m.tagged(e.Command, sentence(e.Does))
		}
	}
	if len(p.doc.SeeAlso) > 0 {
		m.section("SEE ALSO")
		m.seeAlso(p.doc.SeeAlso)
	}
	return m.String()
}

// environment is what every tool heeds.
var environment = []clikit.File{
	{Path: "NIXOS_GO_ROOT", Does: "The folder of the configuration, where --flake names none."},
	{Path: "NO_COLOR", Does: "Colour is not used when it is set to anything (https://no-color.org)."},
}

// sentence is a phrase as a sentence.
func sentence(text string) string {
	if text == "" {
		return text
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "?") {
		text += "."
	}
	return text
}

// roff builds a page.
type roff struct{ strings.Builder }

func (m *roff) linef(format string, args ...any) {
	fmt.Fprintf(m, format, args...)
	m.WriteByte('\n')
}

func (m *roff) section(title string) { m.linef(`.SH "%s"`, title) }

// escapes keep text from being read as requests or typography.
var escapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`,
	"…", `\[u2026]`, "→", `\[->]`)

// escape is one line of text; a dot at its beginning would make it a request.
func escape(text string) string {
	text = escapes.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func (m *roff) text(text string) { m.linef("%s", escape(text)) }

// prose is text in paragraphs; lines that begin with a space are kept.
func (m *roff) prose(text string) {
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			m.linef(".PP")
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			if strings.HasPrefix(line, " ") {
				m.linef(".br")
			}
			m.text(line)
		}
	}
}

// synopsis shows a form: the name bold, placeholders in italics.
func (m *roff) synopsis(form string) {
	var words []string
	for word := range strings.FieldsSeq(form) {
		plain := strings.Trim(word, "[]…")
		switch {
		case plain == strings.ToUpper(plain) && plain != "":
			words = append(words, strings.Replace(escape(word), escape(plain), `\fI`+escape(plain)+`\fR`, 1))
		default:
			words = append(words, `\fB`+escape(word)+`\fR`)
		}
	}
	m.linef("%s", strings.Join(words, " "))
}

// tagged is a term and what is said of it.
func (m *roff) tagged(term, text string) {
	m.linef(".TP")
	m.linef(`\fB%s\fR`, escape(term))
	m.text(text)
}

func (m *roff) commands(p page) {
	if len(p.commands) == 0 {
		return
	}
	m.section("COMMANDS")
	p.eachCommand(func(path string, c command) {
		m.linef(".SS %s", `"`+escape(strings.ReplaceAll(path[1:], "/", " "))+`"`)
		m.text(sentence(c.usage))
		if c.description != "" {
			m.linef(".PP")
			m.prose(c.description)
		}
		m.flags(c.flags)
	})
}

func (m *roff) flags(flags []clikit.FlagDoc) {
	for _, flag := range flags {
		m.linef(".TP")
		synopsis, value := flag.Synopsis(), ""
		if flag.Value != "" {
			synopsis, value = strings.TrimSuffix(synopsis, " "+flag.Value), ` \fI`+escape(flag.Value)+`\fR`
		}
		m.linef(`\fB%s\fR%s`, escape(synopsis), value)
		m.text(sentence(flag.Usage))
	}
}

func (m *roff) files(title string, files []clikit.File) {
	if len(files) == 0 {
		return
	}
	m.section(title)
	for _, file := range files {
		m.tagged(file.Path, sentence(file.Does))
	}
}

// seeAlso shows references with their names bold.
func (m *roff) seeAlso(pages []string) {
	references := make([]string, 0, len(pages))
	for _, reference := range pages {
		name, section, _ := strings.Cut(reference, "(")
		references = append(references, fmt.Sprintf(`\fB%s\fR(%s`, escape(name), section))
	}
	m.linef("%s", strings.Join(references, ", "))
}
