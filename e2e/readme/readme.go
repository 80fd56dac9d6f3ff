// Package readme takes the commands out of a Markdown page, so that a test can run
// what a reader would paste.
package readme

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Block is one fenced block of commands.
type Block struct {
	// Line is where its first command is, from 1.
	Line int
	// Script is what is between the fences.
	Script string
}

// Blocks returns the sh blocks of one section of a page, in order: those below the
// heading and above the next one of the same or a higher level. It is an error when
// the page has no such heading, or ends within a block.
func Blocks(path, heading string) ([]Block, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the page: %w", err)
	}
	defer file.Close()
	var blocks []Block
	var block *Block
	found, inside, fenced := false, false, false
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "```"):
			if block != nil {
				blocks = append(blocks, *block)
			}
			block = nil
			fenced = !fenced
			if fenced && inside && line == "```sh" {
				block = &Block{Line: number + 1}
			}
		case block != nil:
			block.Script += line + "\n"
		case !fenced && strings.HasPrefix(line, "#"):
			if line == heading {
				found, inside = true, true
			} else if level(line) <= level(heading) {
				inside = false
			}
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, fmt.Errorf("read the page: %w", lines.Err())
	case fenced:
		return nil, fmt.Errorf("%s: the page ends within a block", path)
	case !found:
		return nil, fmt.Errorf("%s: there is no heading %q", path, heading)
	}
	return blocks, nil
}

func level(heading string) int { return len(heading) - len(strings.TrimLeft(heading, "#")) }
