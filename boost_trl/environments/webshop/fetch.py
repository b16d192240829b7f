"""One HTTP request with the standard library, and errors that say what to do."""

from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def fetch(url: str, timeout: float, data: bytes | None = None, content_type: str | None = None) -> tuple[str, str]:
    """Text and final address of `url`; with `data` it is sent by POST.

    Raises:
        ConnectionError: if nothing answers, or with an error, or not to the end.
    """
    request = Request(url, data=data, headers={"Content-Type": content_type} if content_type else {})
    try:
        with urlopen(request, timeout=timeout) as answer:
            return answer.read().decode("utf-8", "replace"), answer.url
    except HTTPError as error:
        raise ConnectionError(f"the WebShop server answered {error.code} to {url}") from error
    except HTTPException as error:
        raise ConnectionError(f"the WebShop server's answer to {url} is cut or no HTTP ({error!r})") from error
    except OSError as error:
        raise ConnectionError(f"no WebShop server answers at {url}: {error}; is it running?") from error


def checked_base(url: str) -> str:
    """`url` with one slash at its end.

    Raises:
        ValueError: if it is no address.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"`base_url` must start with http:// or https://, got {url!r}")
    return url.rstrip("/") + "/"
