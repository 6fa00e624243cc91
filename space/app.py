"""The demonstration as a Hugging Face Space, by the shipped model alone; PORT in the environment is another port."""

import os

from src.demo import main

if __name__ == "__main__":
    main(["--shipped", "--host", "0.0.0.0", "--port", os.environ.get("PORT", "7860")])
