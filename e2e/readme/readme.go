// Package readme takes the commands out of a Markdown page, so that a test can run
// what a reader would paste.
package readme

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Mark, alone on a line as an HTML comment before a fenced sh block, makes the
// block one that the test runs.
const Mark = "<!-- tested"

// Block is one fenced block of commands.
type Block struct {
	// Line is where its first command is, from 1.
	Line int
	// Script is what is between the fences.
	Script string
}

// Blocks returns the marked sh blocks of a page, in order. A mark that no sh block
// follows is an error: it would look tested and not be.
func Blocks(path string) ([]Block, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the page: %w", err)
	}
	defer file.Close()
	var blocks []Block
	var script *strings.Builder
	marked, begin := 0, 0
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		switch {
		case script != nil && strings.TrimSpace(line) == "```":
			blocks = append(blocks, Block{Line: begin, Script: script.String()})
			script = nil
		case script != nil:
			script.WriteString(line + "\n")
		case strings.HasPrefix(strings.TrimSpace(line), Mark):
			marked = number
		case marked > 0 && strings.TrimSpace(line) == "```sh":
			script, begin, marked = &strings.Builder{}, number+1, 0
		case marked > 0 && strings.TrimSpace(line) != "":
			return nil, fmt.Errorf("%s:%d: no ```sh block follows the mark", path, marked)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	if script != nil || marked > 0 {
		return nil, fmt.Errorf("%s: the page ends within a marked block", path)
	}
	return blocks, nil
}
