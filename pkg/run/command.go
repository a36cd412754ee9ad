// Package run runs programs and reaches files, here or inside a mounted
// installation.
//
// A command is a value ([Command]): built by a pure function, shown by a dry
// run, compared by a test, and run by a [Runner] under a context. No shell is
// involved. Secrets reach a program by its standard input or by an extra file
// descriptor, never by its arguments or environment, and what was registered
// with a [Redactor] appears in no error and in no live output.
//
// [Host] pairs a runner with the files of the same machine ([Files]), so that
// one function works on the running system and on an installation below
// /mnt.
package run

import (
	"context"
	"os"
	"strings"
)

// Command is one call of one program.
type Command struct {
	// Program is a name to be found in PATH, or an absolute path.
	Program string
	// Args are its arguments, without the program's name.
	Args []string
	// Dir is the working directory; empty is the caller's.
	Dir string
	// Env holds KEY=VALUE pairs added to the environment of the runner.
	Env []string
	// Stdin is what the program reads; nil is /dev/null.
	Stdin []byte
	// Secret says that Stdin is a secret: recorders keep its digest alone.
	Secret bool
	// ExtraFiles become the descriptors 3, 4, … of the program.
	ExtraFiles []*os.File
	// Stream shows the program's output while it runs. Its standard output
	// is then part of the tail and is kept in the result all the same.
	Stream bool
	// Interactive hands the terminal over: the program reads the keyboard and
	// writes to the screen itself, and the result holds no output.
	Interactive bool
}

// New is a command of a program and its arguments.
func New(program string, args ...string) Command {
	return Command{Program: program, Args: args}
}

// Result is what a program left behind.
type Result struct {
	// Stdout is the whole standard output.
	Stdout []byte
	// Tail is the end of what it wrote to standard error (of both streams
	// when the output was streamed), redacted.
	Tail string
	// Status is the exit status.
	Status int
}

// Runner runs commands. A program that exits with another status than 0 gives
// an [*Error] and a result that holds what it wrote until then.
type Runner interface {
	Run(ctx context.Context, c Command) (Result, error)
}

// String is the command as one would type it in a shell.
func (c Command) String() string {
	words := make([]string, 0, len(c.Args)+1)
	for _, word := range append([]string{c.Program}, c.Args...) {
		words = append(words, Quote(word))
	}
	return strings.Join(words, " ")
}

// plain are the bytes that no shell interprets, wherever they stand.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_"

// Quote is a word as a POSIX shell takes it, quoted only where it must be.
func Quote(word string) string {
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
